-- What the config asks for at each join, inside mod_muc: affiliations, and the messages to who comes in.

local json = require "util.json";
local st = require "util.stanza";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";

local people, rooms, records, setup, visitors, decisions; -- handed over by start.lib.lua

-- Jitsi's users have a new random JID on each connection: a moderator is known by the token. The role was worked out
-- before the hook runs, so it is set as well.
local function is_to_be_moderator(event)
	if decisions.of(event.stanza).is_moderator then return true; end
	local record = rooms.record_of(event.room);
	return record and people.is_listed(record.settings.moderators, people.identity_of(event.origin));
end

local function give_affiliation(event)
	if visitors.is_node() or not is_to_be_moderator(event) then return; end
	local room, occupant = event.room, event.occupant;
	local affiliation = room:get_affiliation(occupant.bare_jid);
	if affiliation == "outcast" then return; end
	if affiliation ~= "owner" then
		setup.grant(room, occupant.bare_jid, "owner");
		occupant.role = room:get_default_role("owner");
	end
	if not decisions.of(event.stanza).is_moderator then return; end
	local life = rooms.life_of(room);
	life.moderators = life.moderators or {};
	life.moderators[occupant.bare_jid] = true;
end

-- Modules such as token_affiliation set an affiliation seconds later too. What a user does (`actor`) counts.
local function keep_moderator(event)
	local life = rooms.known_life(event.room);
	if event.actor or not life or not life.moderators or not life.moderators[event.jid] then return; end
	if event.affiliation ~= "owner" and event.affiliation ~= "outcast" then event.allowed = false; end
end

local function on_left(event)
	local life = rooms.known_life(event.room);
	if life and life.moderators then life.moderators[event.occupant.bare_jid] = nil; end
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
	decisions = need.decisions;
	return {
		give_affiliation = give_affiliation; keep_moderator = keep_moderator; follow_moderators = follow_moderators;
		greet = greet; on_left = on_left;
	};
end

return { version = "0.2.0"; new = new };
