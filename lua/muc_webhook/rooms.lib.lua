-- The rooms there are, and what is kept about each.

local jid = require "util.jid";
local new_uuid = require "util.uuid".generate;
local now = require "util.time".now;
local timer = require "util.timer";

local none = {}; -- nobody changes it

local state, people, host; -- handed over by start.lib.lua

-- A join that waited across a reload of mod_muc must not look into the old one, which would load rooms that the new
-- one has.
local function muc_now()
	return host.modules.muc;
end

local function room_of(room_jid)
	local current = muc_now();
	return current and current.get_room_from_jid(room_jid) or nil;
end

-- The record of a room whose settings are known.
local function record_of(room)
	local record = state.records[room.jid];
	return record and record.settings and record or nil;
end

-- What has happened in a room, from the first event or meeting until it is destroyed.
local function life_of(room)
	local life = state.lives[room.jid];
	if not life then
		life = { sequence = 0; people = {} };
		state.lives[room.jid] = life;
	end
	return life;
end

-- It names this life in events; most rooms send none.
local function id_of(life)
	life.id = life.id or new_uuid();
	return life.id;
end

local function known_life(room)
	return state.lives[room.jid];
end

local function stop_timer(life)
	if not life.timer then return; end
	timer.stop(life.timer);
	life.timer = nil;
end

local function end_life(room_jid)
	local life = state.lives[room_jid];
	state.lives[room_jid] = nil;
	if life then stop_timer(life); end
end

-- When the life of a room began: the room was made, or was asked for, or the meeting before this one was over in a
-- persistent room. It is in the room's own data, which other objects of the same room have too.
local function begin_life(room, began_at)
	room._data.muc_webhook_began_at = began_at or now();
end

-- Before hooks other than mod_muc's see a new room. Code may also make a room without a join.
local function on_new_room(event)
	local room = event.room;
	if room._data.muc_webhook_began_at then return; end
	local record = state.records[room.jid];
	begin_life(room, record and record.began_at);
end

-- Nothing is known of a room from before this module was there.
local function life_began_at(room)
	return room._data.muc_webhook_began_at or 0;
end

-- A room of another component, such as a lobby.
local function room_elsewhere(room_jid)
	local other = prosody.hosts[jid.host(room_jid)];
	local muc = other and other.modules and other.modules.muc;
	return muc and muc.get_room_from_jid(room_jid) or nil;
end

local function breakout_rooms_of(room)
	if not room._data.breakout_rooms then return none; end
	local list = {};
	for room_jid in pairs(room._data.breakout_rooms) do table.insert(list, room_elsewhere(room_jid)); end
	return list;
end

local function lobby_of(room)
	return room._data.lobbyroom and room_elsewhere(room._data.lobbyroom) or nil;
end

local function is_healthcheck(room_jid)
	return room_jid:sub(1, 21) == "__jicofo-health-check";
end

-- Jitsi keeps the main room, by making it persistent, while its people are in breakout rooms.
local function is_in_breakout(room)
	return room._data.breakout_rooms_active == true;
end

local function meeting_id(room)
	if not room then return nil; end
	return room._data.meeting_id or room._data.meetingId;
end

local function occupants(room)
	local n = 0;
	for _ in pairs(room._occupants) do n = n + 1; end -- each_occupant() would copy them all
	return n;
end

-- Without jicofo and the like.
local function real_occupants(room)
	local n = 0;
	for _, occupant in pairs(room._occupants) do
		if not people.is_exempt(occupant.bare_jid) then n = n + 1; end
	end
	return n;
end

local function new(need)
	state, people, host = need.state, need.people, prosody.hosts[module.host];
	return {
		muc = muc_now; of = room_of; record_of = record_of;
		on_new_room = on_new_room; begin_life = begin_life; life_began_at = life_began_at;
		breakout_rooms_of = breakout_rooms_of; lobby_of = lobby_of;
		life_of = life_of; id_of = id_of; known_life = known_life; stop_timer = stop_timer; end_life = end_life;
		is_healthcheck = is_healthcheck; is_in_breakout = is_in_breakout;
		meeting_id = meeting_id; occupants = occupants; real_occupants = real_occupants;
	};
end

return { version = "0.2.0"; new = new };
