-- What is recorded in a room.
--
-- Jicofo says so in its presence, again and again, as long as it is in the room:
--
--   <jibri-recording-status xmlns="http://jitsi.org/protocol/jibri" status="on" session_id="…" recording_mode="file"/>

local jid = require "util.jid";

local xmlns_jibri = "http://jitsi.org/protocol/jibri";

local state, people, rooms, events; -- handed over by start.lib.lua

-- Any participant can write such an element.
local function is_jicofo(occupant)
	return jid.resource(occupant.nick) == "focus" and people.is_exempt(occupant.bare_jid);
end

local function send(room, event_type, session_id, details)
	details = details or {};
	details.eventType, details.sessionId = event_type, session_id;
	events.send("recording", room, details);
end

local function details_of(room, status)
	local initiator = status.attr.initiator; -- the occupant who has started or stopped it
	local occupant = initiator and room:get_occupant_by_nick(initiator);
	return {
		recordingMode = status.attr.recording_mode;
		actorNick = occupant and jid.resource(initiator); actorJid = occupant and occupant.bare_jid;
	};
end

-- Why it has ended, if nobody has stopped it.
local function failure_in(status)
	local failure = (status.attr.failure_reason or ""):lower();
	return failure ~= "" and failure ~= "undefined" and failure or nil;
end

local function take(room, status)
	local session_id, what = status.attr.session_id, (status.attr.status or ""):lower();
	if not session_id or what ~= "on" and what ~= "off" then return; end
	local life = rooms.life_of(room);
	life.recordings = life.recordings or {};
	local known = life.recordings[session_id];
	local details = details_of(room, status);
	local failure = failure_in(status);
	if what == "on" then
		if known then return; end
		life.recordings[session_id] = "on";
		return send(room, "STARTED", session_id, details);
	end
	life.recordings[session_id] = "off";
	if known ~= "off" and failure then
		details.error = failure;
		send(room, "FAILED", session_id, details);
	elseif known == "on" then
		send(room, "STOPPED", session_id, details);
	end
end

local function on_presence(event)
	local room, occupant = event.room, event.occupant;
	if occupant.nick:sub(-6) ~= "/focus" or not occupant.role then return; end
	local status = event.stanza:get_child("jibri-recording-status", xmlns_jibri);
	if status and is_jicofo(occupant) and events.is_watched(room) then take(room, status); end
end

-- Jicofo has left a room that ends, and cannot say any more that the recording ends too.
local function end_all(room)
	local life = state.lives[room.jid];
	for session_id, known in pairs(life and life.recordings or {}) do
		if known == "on" then send(room, "STOPPED", session_id); end
	end
	if life then life.recordings = nil; end
end

-- For a recording that could not even be asked for.
local function failed(room, reason)
	send(room, "FAILED", nil, { error = reason });
end

local function new(need)
	state, people, rooms, events = need.state, need.people, need.rooms, need.events;
	return {
		is_jicofo = is_jicofo; failure_in = failure_in; on_presence = on_presence; end_all = end_all; failed = failed;
	};
end

return { version = "0.2.0"; new = new };
