-- The order `kick`: puts a person out of a meeting, with all sessions.
--
-- It reaches the room, its breakout rooms and its lobby, joins that are held, and those that wait in other modules'
-- queues. What this module has given the person in the room is taken back.


local people, rooms, held, put_out, breakout_rooms, setup, messages; -- handed over by start.lib.lua

-- The names of an occupant. Only users of this server have a session here.
local function names_of(occupant)
	return people.names_of(occupant.bare_jid, people.identity_of(prosody.full_sessions[occupant.jid]));
end

-- The best name of an occupant with this nick, for all sessions of the same person.
local function meant_by_nick(meeting_rooms, nick)
	for _, room in ipairs(meeting_rooms) do
		local occupant = room:get_occupant_by_nick(room.jid.."/"..nick);
		if occupant then
			local names = names_of(occupant);
			return { [names[1]] = true; [names[2] or names[1]] = true };
		end
	end
	return {};
end

local function meeting_rooms_of(room)
	if not room then return {}; end
	local list = { room };
	for _, breakout_room in ipairs(rooms.breakout_rooms_of(room)) do table.insert(list, breakout_room); end
	table.insert(list, rooms.lobby_of(room));
	return list;
end

-- Jitsi's frontend does not show the reason of a kick.
local function explain(room, full_jid, reason)
	local line = messages.chat_line(room.jid, reason);
	line.attr.to = full_jid;
	room:route_stanza(line);
	room:route_stanza(messages.data(room.jid, full_jid, { type = "KICKED"; reason = reason }));
end

local function put_out_of_room(room, meant, reason)
	local found = {};
	for _, occupant in pairs(room._occupants) do -- each_occupant() would copy them all
		if not people.is_exempt(occupant.bare_jid) and people.is_meant(meant, names_of(occupant)) then
			table.insert(found, occupant);
		end
	end
	for _, occupant in ipairs(found) do
		for full_jid in occupant:each_session() do explain(room, full_jid, reason); end
		room:set_role(true, occupant.nick, nil, reason);
	end
	return found;
end

-- Who was put out is no member or owner any more because of what this module gave.
local function take_back(room, meant, found, reason)
	local bare_jids = {};
	for _, occupant in ipairs(found) do bare_jids[occupant.bare_jid] = true; end
	for name in pairs(meant) do
		local bare_jid = name:match("^jid:(.*)$");
		if bare_jid then bare_jids[bare_jid] = true; end
	end
	for bare_jid in pairs(bare_jids) do
		setup.take_back(room, bare_jid, reason);
	end
end

-- Who is on the way from one of the meeting's rooms to another is in none of them.
local function keep_out_of_breakout_rooms(room, meant)
	breakout_rooms.keep_out(room, function (bare_jid)
		local of_user = prosody.bare_sessions[bare_jid];
		local _, session = next(of_user and of_user.sessions or {});
		return people.is_meant(meant, people.names_of(bare_jid, people.identity_of(session)));
	end);
end

-- How many occupants are out, and joins refused; or nil and what is wrong with the order. `room` is nil while it is not
-- made; then the joins count that had begun before the order.
local function carry_out(order, room_jid, room, reason, had_begun)
	local meeting_rooms = meeting_rooms_of(room);
	local meant, nick = people.names_meant_by(order.user), nil;
	if not meant then
		if type(order.nick) ~= "string" or order.nick == "" then return nil, "a user or a nick is needed"; end
		meant = meant_by_nick(meeting_rooms, order.nick);
		nick = next(meant) == nil and order.nick; -- perhaps of somebody who is not in yet
	end
	local function is_theirs(ticket)
		return ticket.room_jid == room_jid and (room or had_begun(ticket.began_at))
			and (nick and held.nick_of(ticket) == nick or people.is_meant(meant, held.names_of(ticket)));
	end

	if room then
		put_out.note(room, meant, reason);
		keep_out_of_breakout_rooms(room, meant);
	end
	local found = {};
	for _, each in ipairs(meeting_rooms) do
		for _, occupant in ipairs(put_out_of_room(each, meant, reason)) do table.insert(found, occupant); end
	end
	if room and rooms.of(room_jid) == room then take_back(room, meant, found, reason); end
	held.drop_grants(function (to, from) return to == room_jid and meant["jid:"..from] ~= nil; end);
	return #found + held.each(is_theirs, held.refuse, reason);
end

local function new(need)
	people, rooms, held, put_out = need.people, need.rooms, need.held, need.put_out;
	breakout_rooms, setup, messages = need.breakout_rooms, need.setup, need.messages;
	return { carry_out = carry_out };
end

return { version = "0.2.0"; new = new };
