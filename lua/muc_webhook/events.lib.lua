-- Sends the meeting service the events of the rooms that it asked for.

local jid = require "util.jid";
local json = require "util.json";
local new_uuid = require "util.uuid".generate;

local state, options, people, rooms, queue; -- handed over by start.lib.lua

local function send(name, room, details)
	if not options.events[name] or options.are_wrong then return; end
	local life = rooms.life_of(room);
	life.sequence = life.sequence + 1;
	local item = { id = new_uuid(); endpoint = name };
	local body = {
		event = name; eventId = item.id; sequence = life.sequence; roomInstance = life.id;
		roomName = jid.node(room.jid) or room.jid; roomJid = room.jid; meetingId = rooms.meeting_id(room); timestamp = os.time();
	};
	for key, value in pairs(details) do body[key] = value; end
	item.body = json.encode(body);
	queue.add(room.jid, item);
end

local function is_watched(room)
	return next(options.events) ~= nil and not rooms.is_healthcheck(room.jid);
end

local function about(person, nick)
	return {
		userJid = person.jid; userName = person.name; userId = person.id; userEmail = person.email; guest = person.guest;
		nick = jid.resource(nick); occupantJid = nick;
	};
end

local function on_joined(event)
	local room, occupant = event.room, event.occupant;
	if not is_watched(room) or people.is_exempt(occupant.bare_jid) then return; end
	local identity = people.identity_of(event.origin);
	local person = {
		jid = occupant.bare_jid; name = people.display_name(event.stanza, identity); id = identity.id; email = identity.email;
		joined_at = os.time(); moderator = occupant.role == "moderator";
	};
	if event.origin then person.guest = people.is_guest(event.origin, identity); end
	rooms.life_of(room).people[event.nick] = person;
	local details = about(person, event.nick);
	details.role, details.moderator, details.participants = occupant.role, person.moderator, rooms.real_occupants(room);
	send("user-joined", room, details);
end

local departures = { ["301"] = "banned"; ["307"] = "kicked"; ["321"] = "removed"; ["322"] = "removed"; ["333"] = "disconnected" };

-- Runs for each presence that goes out, so it looks before it works.
local function on_presence(event)
	local room, occupant = event.room, event.occupant;
	local life = state.lives[room.jid];
	local person = life and life.people[occupant.nick];
	if not person then return; end
	if not occupant.role then
		for status in event.x:childtags("status") do
			local departure = departures[status.attr.code];
			if departure then
				person.departure, person.departed_by, person.departure_text = departure, event.actor, event.reason;
			end
		end
		return;
	end
	local moderator = occupant.role == "moderator";
	if moderator == person.moderator then return; end
	person.moderator = moderator;
	local details = about(person, occupant.nick);
	details.moderator, details.role = moderator, occupant.role;
	details.affiliation = room:get_affiliation(occupant.bare_jid) or "none";
	if event.actor then
		details.actorJid = jid.bare(event.actor);
		details.actorNick = jid.resource(room:get_occupant_jid(event.actor));
	end
	details.reason = event.reason;
	send("moderator-changed", room, details);
end

local function departure_of(event, person)
	if event.room.destroying then return "room-destroyed"; end
	if person.departure then return person.departure; end
	if rooms.is_in_breakout(event.room) and event.stanza and event.stanza:get_child_text("status") == "switch_room" then
		return "breakout-room"; -- is still in the meeting, and will join again
	end
	local origin = event.origin;
	if origin and origin.full_jid and prosody.full_sessions[origin.full_jid] ~= origin then return "disconnected"; end
	return "left";
end

local function on_left(event)
	local room = event.room;
	local life = state.lives[room.jid];
	local person = life and life.people[event.nick];
	if not person then return; end
	life.people[event.nick] = nil;
	local stanza = event.stanza;
	if stanza and stanza.attr.type == nil then -- has not left: goes on under another nick
		if not life.people[stanza.attr.to] then life.people[stanza.attr.to] = person; end
		return;
	end
	local details = about(person, event.nick);
	details.reason = departure_of(event, person);
	details.reasonText = person.departure_text;
	details.actorJid = person.departed_by and jid.bare(person.departed_by) or nil;
	details.durationSeconds = math.max(0, os.time() - person.joined_at);
	details.participants = rooms.real_occupants(room);
	send("user-left", room, details);
end

local function on_destroyed(event)
	local room = event.room;
	local life = state.lives[room.jid];
	-- Health checks, and rooms of the lobby and of other modules that nobody was asked for, have no events.
	if is_watched(room) and not room._data.destroyed and not room.muc_webhook_over then
		room.muc_webhook_over = true;
		send("room-destroyed", room, {
			reason = life and life.ending or (room.destroying and "destroyed") or "empty";
			reasonText = event.reason;
		});
	end
	rooms.end_life(room.jid);
end

local function new(need)
	state, options, people, rooms, queue = need.state, need.options, need.people, need.rooms, need.queue;
	return { on_joined = on_joined; on_presence = on_presence; on_left = on_left; on_destroyed = on_destroyed };
end

return { version = "0.2.0"; new = new };
