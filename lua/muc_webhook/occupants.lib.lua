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
	setup.grant(room, occupant.bare_jid, "owner");
	occupant.role = room:get_default_role("owner");
end

-- Those who are in already, when the list of moderators has changed.
local function follow_moderators(room, before)
	local record = rooms.record_of(room);
	if not record or visitors.is_node() then return; end
	for _, occupant in room:each_occupant() do
		local bare_jid = occupant.bare_jid;
		local identity = people.identity_of(prosody.full_sessions[occupant.jid]);
		local affiliation = room:get_affiliation(bare_jid);
		if people.is_listed(record.settings.moderators, identity) then
			if affiliation ~= "owner" and affiliation ~= "outcast" then setup.grant(room, bare_jid, "owner"); end
		elseif affiliation == "owner" and people.is_listed(before, identity) then
			setup.demote(room, bare_jid);
		end
	end
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
	return { give_affiliation = give_affiliation; follow_moderators = follow_moderators; greet = greet };
end

return { version = "0.2.0"; new = new };
