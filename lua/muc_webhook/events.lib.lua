-- Writes the events of a room, and puts them into the queue.
--
-- What has happened is found out elsewhere: attendance.lib.lua knows who is in, recordings.lib.lua what is recorded.

local jid = require "util.jid";
local json = require "util.json";
local new_uuid = require "util.uuid".generate;
local timer = require "util.timer";
local valid_utf8 = require "util.encodings".utf8.valid;

local state, options, safely, rooms, queue; -- handed over by start.lib.lua

-- The sidecar takes bodies of up to 64 KiB. A JID is at most 3 KiB long; any other text can be of any length.
local longest_text = 1023;
local cut_texts = { userName = true; reasonText = true; reason = true; error = true };
local dropped_texts = { userId = true; userEmail = true; meetingId = true; sessionId = true; recordingMode = true };

local function cut(text)
	if #text <= longest_text then return text; end
	local last = longest_text;
	while last > 0 and text:byte(last + 1) >= 0x80 and text:byte(last + 1) < 0xC0 do last = last - 1; end
	return text:sub(1, last);
end

-- A part of an id is not that id, so one that is too long is left out.
local function bound_texts(body)
	for name in pairs(cut_texts) do
		local text = type(body[name]) == "string" and cut(body[name]);
		body[name] = text and valid_utf8(text) and text or nil;
	end
	for name in pairs(dropped_texts) do
		local text = body[name];
		if type(text) == "string" and (#text > longest_text or not valid_utf8(text)) then body[name] = nil; end
	end
end

local function enqueue(name, room, details)
	if not options.events[name] or options.are_wrong then return nil; end
	local life = rooms.life_of(room);
	life.sequence = life.sequence + 1;
	local item = { id = new_uuid(); endpoint = name };
	local body = {
		event = name; eventId = item.id; sequence = life.sequence; roomInstance = rooms.id_of(life);
		roomName = jid.node(room.jid) or room.jid; roomJid = room.jid; meetingId = rooms.meeting_id(room); timestamp = os.time();
	};
	for key, value in pairs(details) do body[key] = value; end
	bound_texts(body);
	item.body = json.encode(body);
	queue.add(room.jid, item);
	return item.id;
end

local function details_of(person)
	return {
		userJid = person.jid; userName = person.name; userId = person.id; userEmail = person.email; guest = person.guest;
		nick = jid.resource(person.nick); occupantJid = person.nick; joinEventId = person.join_event_id;
	};
end

local function role_details(details, person)
	details.role, details.moderator = person.nick and person.role, person.role == "moderator";
	details.isModerator = details.moderator; -- the complete module's name
	return details;
end

-- Sends the join that is held, if there is one.
local function send_held_join(room)
	local life = state.lives[room.jid];
	local person = life and life.held_join;
	if not person then return; end
	life.held_join = nil;
	local details = role_details(details_of(person), person);
	details.timestamp, details.participants = person.joined_at, person.participants_at_join;
	details.decidedBy, details.decisionId = person.decided_by, person.decision_id;
	person.join_event_id = enqueue("user-joined", room, details);
end

local function send(name, room, details)
	send_held_join(room);
	return enqueue(name, room, details);
end

-- A join is held until all other modules have heard of it, since some of them make a moderator of the user then. It
-- goes before any other event of the room.
local function user_joined(room, person)
	send_held_join(room);
	rooms.life_of(room).held_join = person;
	timer.add_task(0, function () safely("Sending a join into "..room.jid, send_held_join, room); end);
end

local function is_held(room, person)
	return rooms.life_of(room).held_join == person;
end

local function user_left(room, person, details)
	send_held_join(room);
	for key, value in pairs(details_of(person)) do details[key] = value; end
	details.durationSeconds = math.max(0, os.time() - person.joined_at);
	return send("user-left", room, details);
end

local function moderator_changed(room, person, actor, reason)
	local details = role_details(details_of(person), person);
	details.affiliation = room:get_affiliation(person.jid) or "none";
	if actor then
		details.changedBy, details.actorJid = actor, jid.bare(actor);
		details.actorNick = jid.resource(room:get_occupant_jid(actor));
	end
	details.reason = reason;
	send("moderator-changed", room, details);
end

local function is_watched(room)
	return next(options.events) ~= nil and not rooms.is_healthcheck(room.jid);
end

local function send_all_held_joins()
	for room_jid in pairs(state.lives) do
		send_held_join(rooms.of(room_jid) or { jid = room_jid; _data = {} });
	end
end

local function new(need)
	state, options, safely, rooms, queue = need.state, need.options, need.safely, need.rooms, need.queue;
	return {
		is_watched = is_watched; is_held = is_held; send = send; send_all_held_joins = send_all_held_joins;
		user_joined = user_joined; user_left = user_left; moderator_changed = moderator_changed;
	};
end

return { version = "0.2.0"; new = new };
