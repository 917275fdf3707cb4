-- Ends a meeting for all: in the room, in its breakout rooms, and for who waits in its lobby.

local jid = require "util.jid";
local st = require "util.stanza";

local people, rooms, messages; -- handed over by start.lib.lua

-- The next meeting in a persistent room has a life of its own.
local function begin_anew(room)
	local life = rooms.life_of(room);
	room._data.muc_webhook_started_at, room._data.muc_webhook_ends_at = nil, nil;
	life.warned, life.recording, life.auto_record = nil, nil, nil;
	rooms.begin_life(room);
end

local function remove_room(room, text)
	room:set_persistent(false);
	return room:destroy(nil, text);
end

-- All are out before the first of them is announced: otherwise each would be announced to all others.
local function empty(room, text)
	local x = st.stanza("x", { xmlns = "http://jabber.org/protocol/muc#user" }):tag("status", { code = "307" }):up();
	local roles = {};
	for _, occupant in room:each_occupant() do
		if not people.is_exempt(occupant.bare_jid) then
			roles[occupant], occupant.role = occupant.role, nil;
			room:save_occupant(occupant);
		end
	end
	for occupant, role in pairs(roles) do
		room:publicise_occupant_status(occupant, x, nil, nil, text, role);
		module:context(jid.host(room.jid)):fire_event("muc-occupant-left", {
			room = room; nick = occupant.nick; occupant = occupant;
		});
	end
end

local function end_side_rooms(room, text, is_to_go)
	-- Jitsi's module closes the meeting some seconds after all have left these rooms.
	if is_to_go then room._data.breakout_rooms_active = nil; end
	for _, breakout_room in ipairs(rooms.breakout_rooms_of(room)) do remove_room(breakout_room, text); end
	local lobby = rooms.lobby_of(room);
	if lobby and is_to_go then
		remove_room(lobby, text);
	elseif lobby then
		empty(lobby, text);
	end
end

-- `cause` is for events, `reason` for pages, `text` for people. Returns nil and why if another module keeps the room.
local function end_meeting(room, cause, reason, text)
	module:log("info", "Meeting in %s ends: %s", room.jid, text);
	local is_to_go = not room:get_persistent() or rooms.is_in_breakout(room);
	rooms.life_of(room).ending = cause;
	end_side_rooms(room, text, is_to_go);
	if is_to_go then
		room._data.muc_webhook_started_at, room._data.muc_webhook_ends_at = nil, nil;
		if remove_room(room, text) then return true; end
		rooms.life_of(room).ending = nil;
		return nil, "another module keeps the room";
	end
	-- Destroyed, a persistent room would be a tombstone for weeks; only its meeting is over. Jitsi's frontend does not
	-- show why somebody was removed.
	room:broadcast(messages.chat_line(room.jid, text));
	room:broadcast(messages.data(room.jid, nil, { type = "MEETING_ENDED"; reason = reason }));
	begin_anew(room);
	empty(room, text);
	rooms.life_of(room).ending = nil;
	return true;
end

local function new(need)
	people, rooms, messages = need.people, need.rooms, need.messages;
	return { end_meeting = end_meeting; begin_anew = begin_anew };
end

return { version = "0.2.0"; new = new };
