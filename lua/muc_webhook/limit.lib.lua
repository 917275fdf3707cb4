-- maxParticipants: how many occupants a room has at most.
--
-- Whoever goes to a breakout room keeps the place in the main room.

local now = require "util.time".now;
local st = require "util.stanza";

local seconds_between_rooms = 30;

local state, people, rooms; -- handed over by start.lib.lua

local function is_in_a_breakout_room(main_room, full_jid)
	for _, room in ipairs(rooms.breakout_rooms_of(main_room)) do
		if room:get_occupant_jid(full_jid) then return true; end
	end
	return false;
end

local function is_away(room, full_jid, seen_at)
	if not prosody.full_sessions[full_jid] or room:get_occupant_jid(full_jid) then return false; end
	return now() - seen_at < seconds_between_rooms or is_in_a_breakout_room(room, full_jid);
end

-- How many places are kept for those who are in breakout rooms, or on the way; not counting one's own.
local function places_kept(room, own_jid)
	local life = state.lives[room.jid];
	if not life or not life.away then return 0; end
	local n = 0;
	for full_jid, seen_at in pairs(life.away) do
		if not is_away(room, full_jid, seen_at) then
			life.away[full_jid] = nil;
		elseif full_jid ~= own_jid then
			n = n + 1;
		end
	end
	return n;
end

local function refuse_if_full(event)
	local room, stanza = event.room, event.stanza;
	local limit = room._data.max_participants;
	if not limit or people.is_exempt(stanza.attr.from) then return; end
	local kept = places_kept(room, stanza.attr.from);
	-- In most rooms it need not be known who each of them is.
	if rooms.occupants(room) + kept < limit or rooms.real_occupants(room) + kept < limit then return; end
	module:log("info", "A join into %s was refused: it holds %d already", room.jid, limit);
	event.origin.send(st.error_reply(stanza, "cancel", "service-unavailable", "The meeting is full", room.jid));
	return true;
end

-- Nothing waits between this count and the join, so no two joins can be counted as the same one.
local function on_pre_join(event)
	if event.is_first_session then return refuse_if_full(event); end
end

-- One of several sessions of an occupant becomes an occupant of its own.
local function on_pre_change(event)
	if event.is_first_session and not event.is_last_session then return refuse_if_full(event); end
end

-- Whoever leaves one of the meeting's rooms for another says so.
local function note_leaving(main_room, session, stanza)
	if not session or not session.full_jid then return; end
	local life = rooms.life_of(main_room);
	life.away = life.away or {};
	life.away[session.full_jid] = stanza and stanza:get_child_text("status") == "switch_room" and now() or nil;
end

local function on_left(event)
	if rooms.is_in_breakout(event.room) then note_leaving(event.room, event.origin, event.stanza); end
end

-- Jitsi's module for breakout rooms fires this for each who is about to leave one of them.
local function on_leaving_breakout_room(event)
	local main_room = event.main_room;
	if main_room and state.lives[main_room.jid] then note_leaving(main_room, event.session, event.stanza); end
end

local function new(need)
	state, people, rooms = need.state, need.people, need.rooms;
	return {
		on_pre_join = on_pre_join; on_pre_change = on_pre_change; on_left = on_left;
		on_leaving_breakout_room = on_leaving_breakout_room;
	};
end

return { version = "0.2.0"; new = new };
