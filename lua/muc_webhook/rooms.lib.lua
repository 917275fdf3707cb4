-- The rooms there are, and what is kept about each.

local new_uuid = require "util.uuid".generate;
local timer = require "util.timer";

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
		life = { id = new_uuid(); sequence = 0; people = {} };
		state.lives[room.jid] = life;
	end
	return life;
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

local function real_occupants(room)
	local n = 0;
	for _, occupant in room:each_occupant() do
		if not people.is_exempt(occupant.bare_jid) then n = n + 1; end
	end
	return n;
end

local function new(need)
	state, people, host = need.state, need.people, prosody.hosts[module.host];
	return {
		muc = muc_now; of = room_of; record_of = record_of;
		life_of = life_of; known_life = known_life; stop_timer = stop_timer; end_life = end_life;
		is_healthcheck = is_healthcheck; is_in_breakout = is_in_breakout;
		meeting_id = meeting_id; real_occupants = real_occupants;
	};
end

return { version = "0.2.0"; new = new };
