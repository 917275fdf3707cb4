-- The order `who`: who is in a meeting, and since when.

local array = require "util.array";
local jid = require "util.jid";

local state, people, rooms; -- handed over by start.lib.lua

-- A meeting's occupants, by room JID and nick: the time of the join. `main_room` is there for a breakout room.
local function on_joined(event, main_room)
	local occupant, room = event.occupant, main_room or event.room;
	if people.is_exempt(occupant.bare_jid) then return; end
	local life = rooms.life_of(room);
	life.since = life.since or {};
	life.since[occupant.nick] = life.since[occupant.nick] or os.time();
end

local function on_left(event, main_room)
	local life = state.lives[(main_room or event.room).jid];
	local since, stanza = life and life.since, event.stanza;
	if not since then return; end
	if stanza and stanza.attr.type == nil then since[stanza.attr.to] = since[event.nick]; end -- under another nick
	since[event.nick] = nil;
end

-- This module may have been started in the middle of the meeting.
local function joined_at(life, nick)
	local person = life.people[nick];
	return life.since and life.since[nick] or person and person.joined_at or nil;
end

local function describe(occupant, life, breakout_jid)
	local session = prosody.full_sessions[occupant.jid];
	local identity = people.identity_of(session);
	return {
		nick = jid.resource(occupant.nick); userJid = occupant.bare_jid; userId = identity.id; userEmail = identity.email;
		guest = session ~= nil and people.is_guest(session, identity); role = occupant.role;
		since = joined_at(life, occupant.nick); breakoutRoom = breakout_jid;
	};
end

local function list(room)
	local occupants, life = array {}, rooms.life_of(room);
	local function add(from, breakout_jid)
		for _, occupant in pairs(from._occupants) do -- each_occupant() would copy them all
			if not people.is_exempt(occupant.bare_jid) then occupants:push(describe(occupant, life, breakout_jid)); end
		end
	end
	add(room);
	for _, breakout_room in ipairs(rooms.breakout_rooms_of(room)) do add(breakout_room, breakout_room.jid); end
	return occupants;
end

local function new(need)
	state, people, rooms = need.state, need.people, need.rooms;
	return { on_joined = on_joined; on_left = on_left; list = list };
end

return { version = "0.2.0"; new = new };
