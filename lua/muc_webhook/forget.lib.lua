-- The order `forget`: drops what is remembered of a room, or of a person, or of all.
--
-- A question that is under way was asked before the order, so its join asks again.

local state, people, held, records; -- handed over by start.lib.lua

local function drop_records(room_jid, had_begun)
	local dropped = {};
	for each_jid, record in pairs(state.records) do
		if (not room_jid or each_jid == room_jid) and had_begun(record.began_at) then table.insert(dropped, each_jid); end
	end
	for _, each_jid in ipairs(dropped) do records.drop(each_jid); end
	return #dropped;
end

-- How much was forgotten. Without `room_jid` it is about all rooms, without `user` about everybody.
local function carry_out(user, room_jid, had_begun)
	local meant = people.names_meant_by(user);
	local n = meant and 0 or drop_records(room_jid, had_begun);
	n = n + held.drop_grants(function (to, from)
		return (not room_jid or to == room_jid) and (not meant or people.is_meant(meant, people.names_of_jid(from)));
	end);
	return n + held.each(function (ticket)
		return (not room_jid or ticket.room_jid == room_jid) and had_begun(ticket.began_at)
			and (not meant or people.is_meant(meant, held.names_of(ticket)));
	end, held.ask_again);
end

local function new(need)
	state, people, held, records = need.state, need.people, need.held, need.records;
	return { carry_out = carry_out };
end

return { version = "0.2.0"; new = new };
