-- The order `refresh`: asks for a room's config again, and applies to the living room what is new in it.
--
-- What a config has locked before may be opened by this newer one; nobody else's locks are.

local array = require "util.array";
local json = require "util.json";

local state, safely, rooms, held, records, config, settings, members_only, occupants; -- handed over by start.lib.lua

-- The names of the settings that are not the same.
local function changes(before, after)
	local names, list = {}, array {};
	for name in pairs(settings.for_room) do
		names[name] = json.encode_ordered { before.settings[name] } ~= json.encode_ordered { after.settings[name] };
	end
	for name in pairs(settings.for_frontend) do
		names[name] = names[name] or json.encode_ordered { before.frontend[name] } ~= json.encode_ordered { after.frontend[name] };
	end
	for name, is_changed in pairs(names) do
		if is_changed then list:push(name); end
	end
	return list:sort();
end

-- Without a new config, a room that has one keeps it.
local function take(record, room, outcome, detail)
	local moderators = records.applied_config(room).settings.moderators;
	if outcome == "ready" then rooms.life_of(room).warned = nil; end -- of the end, which may be another one now
	if record.state == "pending" then
		records.settle(record, outcome, detail, true);
	elseif outcome == "ready" then
		records.take(record, detail, true);
	end
	if outcome == "ready" then
		occupants.follow_moderators(room, moderators);
		members_only.announce(room);
	end
end

-- The answer to a question that was asked before the order would count as a new one.
local function start_over(room_jid, room)
	records.drop(room_jid);
	held.each(function (ticket) return ticket.room_jid == room_jid; end, held.ask_again);
	return records.begin(room_jid, room);
end

-- An old answer is the sidecar's own, or was given before the order. It may open nothing.
local function settle(record, order, outcome, detail, is_old, done)
	local room = rooms.of(record.jid);
	if state.records[record.jid] ~= record or not room then
		return done { status = "absent"; error = "the meeting ended meanwhile" };
	end
	if outcome == "ready" and is_old then
		outcome, detail = "failed", "the meeting service cannot be reached";
	end
	local changed = outcome == "ready" and changes(records.applied_config(room), detail);
	local is_latest = record.refreshed_for == order;
	if is_latest then safely("Refreshing "..record.jid, take, record, room, outcome, detail); end
	if changed then return done { status = "done"; refreshed = true; changed = changed }; end
	done { status = "failed"; error = ("no new config: %s"):format(tostring(detail)) };
end

-- Of a living room. Calls done(outcome) once.
local function carry_out(order, room, done)
	local record = state.records[room.jid];
	if not record or record.state == "pending" then record = start_over(room.jid, room); end
	record.refreshed_for = order;
	if type(order.configuration) == "table" and order.configuration ~= json.null then
		local outcome, detail = config.read_answer(room.jid, 200, json.encode(order.configuration));
		return settle(record, order, outcome, detail, false, done);
	end
	records.ask(record, function (outcome, detail, is_old) settle(record, order, outcome, detail, is_old, done); end);
end

local function new(need)
	state, rooms, held, records, safely = need.state, need.rooms, need.held, need.records, need.safely;
	config, settings, members_only, occupants = need.config, need.settings, need.members_only, need.occupants;
	return { carry_out = carry_out };
end

return { version = "0.2.0"; new = new };
