-- The order `kick`: puts a person out of a meeting, with all sessions.
--
-- It reaches the room, its breakout rooms and its lobby, joins that are held, and those that wait in other modules'
-- queues. What this module has given the person in the room is taken back.


local array = require "util.array";

local people, rooms, held, put_out, breakout_rooms, setup, messages; -- handed over by start.lib.lua

-- The bare JID and the identity of an occupant. Only users of this server have a session here.
local function person_of(occupant)
	return occupant.bare_jid, people.identity_of(prosody.full_sessions[occupant.jid]);
end

local function names_of(occupant)
	return people.names_of(person_of(occupant));
end

-- By whatever name somebody may be remembered.
local function add_user(users, bare_jid, identity)
	users[bare_jid] = true;
	if identity.id then users[identity.id] = true; end
	if identity.email then users[identity.email] = true; end
end

local function list_of(set)
	local list = array {};
	for member in pairs(set) do list:push(member); end
	return list:sort();
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

-- Adds to `found` who was there.
local function put_out_of_room(room, meant, reason, found)
	local first = #found + 1;
	for _, occupant in pairs(room._occupants) do -- each_occupant() would copy them all
		if not people.is_exempt(occupant.bare_jid) and people.is_meant(meant, names_of(occupant)) then
			table.insert(found, occupant);
		end
	end
	for i = first, #found do
		for full_jid in found[i]:each_session() do explain(room, full_jid, reason); end
		room:set_role(true, found[i].nick, nil, reason);
	end
end

-- Who was put out is no member or owner any more because of what this module gave.
local function take_back(room, meant, found, reason)
	local bare_jids = {};
	for _, occupant in ipairs(found) do bare_jids[occupant.bare_jid] = true; end
	for name in pairs(meant) do
		local bare_jid = name:match("^jid:(.*)$");
		if bare_jid then bare_jids[bare_jid] = true; end
	end
	for bare_jid in pairs(bare_jids) do setup.take_back(room, bare_jid, reason); end
end

-- The names that are meant; and the nick, if it is of nobody who is in. Or nil and what is wrong with the order.
local function read(order, meeting_rooms)
	local meant = people.names_meant_by(order.user);
	if meant then return meant; end
	local nick = order.nick;
	if type(nick) ~= "string" or nick == "" then return nil, "a user or a nick is needed"; end
	meant = meant_by_nick(meeting_rooms, nick);
	return meant, next(meant) == nil and nick or nil;
end

-- Those who are on the way: through this module, or from the main room to a breakout room.
local function stop_on_the_way(room_jid, room, meant, reason)
	local function is_meant(bare_jid) return people.is_meant(meant, people.names_of_jid(bare_jid)); end
	held.drop_grants(function (to, from) return to == room_jid and is_meant(from); end);
	if not room then return; end
	put_out.note(room, meant, reason);
	breakout_rooms.keep_out(room, is_meant);
end

-- How many occupants are out, and joins refused, and the names of those users; or nil and what is wrong with the order.
-- `room` is nil while it is not made; then the joins count that had begun before the order.
local function carry_out(order, room_jid, room, reason, had_begun)
	local meeting_rooms = meeting_rooms_of(room);
	local meant, nick = read(order, meeting_rooms);
	if not meant then return nil, nick; end
	stop_on_the_way(room_jid, room, meant, reason);

	local found, users = {}, {};
	for _, each in ipairs(meeting_rooms) do put_out_of_room(each, meant, reason, found); end
	for _, occupant in ipairs(found) do add_user(users, person_of(occupant)); end
	if room and rooms.of(room_jid) == room then take_back(room, meant, found, reason); end

	local refused = held.each(function (ticket)
		return ticket.room_jid == room_jid and (room or had_begun(ticket.began_at))
			and (nick and held.nick_of(ticket) == nick or people.is_meant(meant, held.names_of(ticket)));
	end, function (ticket)
		add_user(users, held.person_of(ticket));
		held.refuse(ticket, reason);
	end);
	return #found + refused, list_of(users);
end

local function new(need)
	people, rooms, held, put_out = need.people, need.rooms, need.held, need.put_out;
	breakout_rooms, setup, messages = need.breakout_rooms, need.setup, need.messages;
	return { carry_out = carry_out };
end

return { version = "0.2.0"; new = new };
