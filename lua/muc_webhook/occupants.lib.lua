-- What the config asks for at each join, inside mod_muc: affiliations, and the messages to who comes in.

local json = require "util.json";
local st = require "util.stanza";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";

local people, rooms, records, setup; -- handed over by start.lib.lua

-- Jitsi's users have a new random JID on each connection: a moderator is known by the token, and an allowed user of
-- a members-only room becomes a member here. Their role was worked out before the hook runs, so it is set as well.
local function give_affiliation(event)
	local room, occupant = event.room, event.occupant;
	local record = rooms.record_of(room);
	if not record then return; end
	local settings = record.settings;
	local affiliation = room:get_affiliation(occupant.bare_jid);
	local may_be_owner = affiliation ~= "owner" and affiliation ~= "outcast";
	local wanted;
	if may_be_owner and people.is_listed(settings.moderators, people.identity_of(event.origin)) then
		wanted = "owner";
	elseif not affiliation and setup.is_sealed(settings) and not room._data.lobbyroom then
		wanted = "member";
	else
		return;
	end
	setup.try(room, "set_affiliation", true, occupant.bare_jid, wanted);
	occupant.role = room:get_default_role(wanted);
end

local function order_to_record(room, to)
	room:route_stanza(st.message({ from = room.jid, to = to, type = "groupchat" })
		:tag("json-message", { xmlns = xmlns_jitmeet })
			:text(json.encode({ type = "START_RECORDING", auto = true })):up());
end

local function greet(event)
	local room = event.room;
	local record = rooms.record_of(room);
	if not record then return; end
	room:route_stanza(records.message_to(record, event.jid));

	local frontend = record.frontend;
	if frontend.autoRecord == true and frontend.recordingEnabled == true and not people.is_exempt(event.jid) then
		local life = rooms.life_of(room);
		if not life.recording then
			life.recording = true;
			order_to_record(room, event.jid);
		end
	end
end

local function new(need)
	people, rooms, records, setup = need.people, need.rooms, need.records, need.setup;
	return { give_affiliation = give_affiliation; greet = greet };
end

return { version = "0.2.0"; new = new };
