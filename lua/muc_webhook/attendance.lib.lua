-- Who is in which room, and what has changed.
--
-- mod_muc's events are not one for each join and leave: a change of nick can look like a join, one of two sessions can
-- become an occupant of its own, and a module can take an occupant out without a word. So each of them is only a reason
-- to look at the room, and what is sent is the difference between its occupants and those that are known.

local jid = require "util.jid";
local st = require "util.stanza";

local xmlns_nick = "http://jabber.org/protocol/nick";
local seconds_between_visits = 60;

local state, safely, people, rooms, decisions, events, recordings, store; -- handed over by start.lib.lua

local function is_watched(room)
	return events.is_watched(room) and rooms.of(room.jid) == room; -- not one that is gone, or another object of it
end

local function occupant_of(room, nick)
	local occupant = room:get_occupant_by_nick(nick);
	return occupant and not people.is_exempt(occupant.bare_jid) and occupant or nil;
end

local function number_of(persons)
	local n = 0;
	for _ in pairs(persons) do n = n + 1; end
	return n;
end

local function name_of(occupant, identity)
	local shown = st.presence { to = occupant.nick };
	local presence = occupant:get_presence();
	local nick = presence and presence:get_child("nick", xmlns_nick);
	if nick then shown:add_direct_child(nick); end
	return people.display_name(shown, identity);
end

-- Whoever gets as far as this comes in: it runs after all others.
local function on_pre_join(event)
	if not event.is_first_session or not is_watched(event.room) then return; end
	local from, life = event.stanza.attr.from, rooms.life_of(event.room);
	life.decisions = life.decisions or {};
	life.decisions[from] = people.is_exempt(from) and { by = "exempt" } or decisions.of(event.stanza);
end

local function decision_about(life, full_jid)
	local decision = life.decisions and life.decisions[full_jid] or {};
	if life.decisions then life.decisions[full_jid] = nil; end
	return decision;
end

local function arrive(room, life, occupant)
	local session = prosody.full_sessions[occupant.jid]; -- none of a component's users, or of another server's
	local identity = people.identity_of(session);
	local person = {
		nick = occupant.nick; jid = occupant.bare_jid; role = occupant.role; joined_at = os.time();
		name = name_of(occupant, identity); id = identity.id; email = identity.email;
		guest = session ~= nil and people.is_guest(session, identity);
	};
	local decision = decision_about(life, occupant.jid);
	person.decided_by, person.decision_id = decision.by, decision.id;
	life.people[person.nick] = person;
	person.participants_at_join = number_of(life.people);
	events.user_joined(room, person);
end

local function depart(room, life, person, reason, details)
	life.people[person.nick] = nil;
	if room.destroying then life.was_ended = true; end -- while somebody was in
	details = details or {};
	details.reason, details.participants = reason, number_of(life.people);
	events.user_left(room, person, details);
end

local function update(room, person, occupant, actor, reason)
	local was_moderator = person.role == "moderator";
	person.role = occupant.role;
	if was_moderator == (occupant.role == "moderator") or events.is_held(room, person) then return; end
	events.moderator_changed(room, person, actor, reason);
end

local function look_at(room, life, nick, actor, reason)
	local occupant, person = occupant_of(room, nick), life.people[nick];
	if person and not (occupant and occupant.bare_jid == person.jid) then
		depart(room, life, person, "disconnected");
		person = nil;
	end
	if person then
		update(room, person, occupant, actor, reason);
	elseif occupant then
		arrive(room, life, occupant);
	end
end

local function is_known(life, nick, occupant)
	local person = life.people[nick];
	return person and person.jid == occupant.bare_jid and person.role == occupant.role;
end

-- Looks at all of a room: for what no event has shown.
local function visit(room)
	if not events.is_watched(room) then return; end
	local life = state.lives[room.jid] or room:has_occupant() and rooms.life_of(room);
	if not life then return; end
	local changed = {};
	for nick in pairs(life.people) do
		if not room._occupants[nick] then table.insert(changed, nick); end
	end
	for nick, occupant in pairs(room._occupants) do -- each_occupant() would copy them all
		if not is_known(life, nick, occupant) then table.insert(changed, nick); end
	end
	for _, nick in ipairs(changed) do look_at(room, life, nick); end
end

local departures = { ["301"] = "banned"; ["307"] = "kicked"; ["321"] = "removed"; ["322"] = "removed"; ["333"] = "disconnected" };

-- An unavailable presence says why, and of what nick the occupant will be.
local function note_departure(event, life, person)
	for status in event.x:childtags("status") do
		local code = status.attr.code;
		if departures[code] then
			person.departure, person.departed_by, person.departure_text = departures[code], event.actor, event.reason;
		elseif code == "303" and event.nick then
			life.people[person.nick] = nil;
			person.nick = event.room.jid.."/"..event.nick;
			life.people[person.nick] = person;
		end
	end
end

-- Runs for each presence that goes out.
local function on_presence(event)
	local room, nick = event.room, event.occupant.nick;
	if not is_watched(room) then return; end
	local life = rooms.life_of(room);
	if room._occupants[nick] then
		look_at(room, life, nick, event.actor, event.reason);
	elseif life.people[nick] then
		note_departure(event, life, life.people[nick]);
	end
end

local function has_occupant(room, bare_jid)
	for _, occupant in pairs(room._occupants) do
		if occupant.bare_jid == bare_jid then return true; end
	end
	return false;
end

local makes_moderator = { ["owner"] = true; ["admin"] = true };

-- Somebody has made a moderator of a user who is not in the room, or taken it back. What modules do is not told: it is
-- before a join, which says so, or by the config.
local function on_affiliation(event)
	local room, bare_jid, is_moderator = event.room, event.jid, makes_moderator[event.affiliation] or false;
	if type(event.actor) ~= "string" or is_moderator == (makes_moderator[event.previous_affiliation] or false) then return; end
	if not is_watched(room) or people.is_exempt(bare_jid) or has_occupant(room, bare_jid) then return; end
	events.moderator_changed(room, { jid = bare_jid; role = is_moderator and "moderator" or nil }, event.actor, event.reason);
end

local function departure_of(event, person)
	local room, origin, stanza = event.room, event.origin, event.stanza;
	if room.destroying then return "room-destroyed"; end
	if person.departure then return person.departure; end
	if stanza and stanza.attr.type == nil then return "merged"; end -- goes on in another occupant of the same user
	if rooms.is_in_breakout(room) and stanza and stanza:get_child_text("status") == "switch_room" then
		return "breakout-room"; -- is still in the meeting, and will join again
	end
	if origin and origin.full_jid and prosody.full_sessions[origin.full_jid] ~= origin then return "disconnected"; end
	return "left";
end

local function on_left(event)
	local room = event.room;
	local life = state.lives[room.jid];
	local person = life and life.people[event.nick];
	if not person or not is_watched(room) or room._occupants[event.nick] then return; end
	depart(room, life, person, departure_of(event, person), {
		reasonText = person.departure_text; actorJid = person.departed_by and jid.bare(person.departed_by) or nil;
	});
end

-- While its only occupant changes the nick, a room is empty for a moment. mod_muc would destroy it, and leave the user
-- in a room that nobody else can find.
local function keep_room_of_new_nick(event)
	local stanza = event.stanza;
	if stanza and stanza.attr.type == nil and not event.room:has_occupant() then return true; end
end

local function end_room(room, life, cause, reason_text)
	for _, person in pairs(life.people) do depart(room, life, person, "room-destroyed"); end
	recordings.end_all(room);
	events.send("room-destroyed", room, {
		reason = life.was_ended and cause or "all_users_left"; cause = cause; reasonText = reason_text;
	});
end

local function on_destroyed(event)
	local room = event.room;
	-- Health checks, and rooms of the lobby and of other modules that nobody was asked for, have no events.
	if events.is_watched(room) and not room._data.destroyed and not room.muc_webhook_over then
		room.muc_webhook_over = true;
		local life = rooms.life_of(room);
		end_room(room, life, life.ending or (room.destroying and "destroyed") or "empty", event.reason);
	end
	rooms.end_life(room.jid);
end

local function save()
	events.send_all_held_joins();
	local kept;
	for room_jid, life in pairs(state.lives) do
		if next(life.people) then
			kept = kept or {};
			kept[room_jid] = { id = rooms.id_of(life); sequence = life.sequence; people = life.people; recordings = life.recordings };
		end
	end
	local ok, err = store:set(nil, kept);
	if not ok and kept then module:log("error", "Who is in could not be kept for later: %s", err); end
end

-- Who was in when the module was unloaded.
local function restore()
	local kept = store:get(nil);
	store:set(nil, nil);
	if type(kept) ~= "table" then return; end
	for room_jid, life in pairs(kept) do state.lives[room_jid] = life; end
end

-- Version 0.1 remembered less of a person.
local function complete(life)
	for nick, person in pairs(life.people) do
		person.nick = nick;
		person.role = person.role or person.moderator and "moderator" or "participant";
	end
end

-- When the module starts, people may have come and gone.
local function visit_all()
	local known = {};
	for room_jid, life in pairs(state.lives) do
		complete(life);
		if next(life.people) then known[room_jid] = life; end
	end
	for room_jid, life in pairs(known) do
		local room = rooms.of(room_jid);
		if room then
			safely("Visiting "..room_jid, visit, room);
		else
			local gone = { jid = room_jid; _data = {} };
			safely("Ending "..room_jid, end_room, gone, life, "empty");
			rooms.end_life(room_jid);
		end
	end
	for room in rooms.muc().live_rooms() do
		if not known[room.jid] then safely("Visiting "..room.jid, visit, room); end
	end
end

local function visit_live_rooms()
	for room in rooms.muc().live_rooms() do safely("Visiting "..room.jid, visit, room); end
	return seconds_between_visits;
end

local function start()
	visit_all();
	module:add_timer(seconds_between_visits, visit_live_rooms);
end

local function new(need)
	state, safely, people, rooms = need.state, need.safely, need.people, need.rooms;
	decisions, events, recordings = need.decisions, need.events, need.recordings;
	store = module:open_store("muc_webhook_attendance");
	return {
		on_pre_join = on_pre_join; on_presence = on_presence; on_affiliation = on_affiliation; on_left = on_left;
		on_destroyed = on_destroyed;
		keep_room_of_new_nick = keep_room_of_new_nick; save = save; restore = restore; start = start;
		visit_live_rooms = visit_live_rooms;
	};
end

return { version = "0.2.0"; new = new };
