-- What the config asks for at each join, inside mod_muc: affiliations, and the messages to who comes in.

local json = require "util.json";
local st = require "util.stanza";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";

local people, rooms, records, setup, visitors; -- handed over by start.lib.lua

-- Jitsi's users have a new random JID on each connection: a moderator is known by the token. The role was worked out
-- before the hook runs, so it is set as well.
local function give_affiliation(event)
	local room, occupant = event.room, event.occupant;
	local record = rooms.record_of(room);
	if not record or visitors.is_node() then return; end
	local affiliation = room:get_affiliation(occupant.bare_jid);
	if affiliation == "owner" or affiliation == "outcast" then return; end
	if not people.is_listed(record.settings.moderators, people.identity_of(event.origin)) then return; end
	setup.call(room, "set_affiliation", true, occupant.bare_jid, "owner");
	occupant.role = room:get_default_role("owner");
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
	people, rooms, records, setup, visitors = need.people, need.rooms, need.records, need.setup, need.visitors;
	return { give_affiliation = give_affiliation; greet = greet };
end

return { version = "0.2.0"; new = new };
