-- Carries out what the meeting service orders: kick, end, refresh, forget, who.
--
-- An order has an id, and is carried out once: a repeat gets the outcome of the first time, also after a reload of the
-- module. It is for the life of the room that had begun when the order was given, and never for the next meeting of that
-- name: then it is "absent".

local jid = require "util.jid";
local json = require "util.json";

-- Handed over by start.lib.lua.
local state, safely, people, rooms, answers, ending, kick, refresh, forget, who;

local function failed(problem)
	return { status = "failed"; error = problem };
end

local absent = { status = "absent" };

local function is_given(value)
	return value ~= nil and value ~= json.null;
end

-- The JID of the room, or nil if no room of this component can be meant.
local function room_jid_of(order)
	local name = is_given(order.roomJid) and order.roomJid or order.room;
	if not name:find("@", 1, true) then name = name.."@"..module.host; end
	local room_jid = jid.prep(name);
	return room_jid and jid.host(room_jid) == module.host and jid.bare(room_jid) or nil;
end

-- Whether something that began at `at` had begun when the order was given. Its time may be in whole seconds.
local function had_begun_before(order)
	local issued = order.issued;
	return function (at)
		if type(issued) ~= "number" then return true; end
		return (issued % 1 == 0 and math.floor(at) or at) <= issued;
	end;
end

-- The room if it is there. A room that is only being made has joins that are held, and perhaps a record.
local function living_room(room_jid)
	local room = rooms.of(room_jid);
	return room and not room._data.destroyed and room or nil;
end

-- What was asked of a room so far, and does not count any more.
local function ask_again_about(room_jid, had_begun)
	return forget.carry_out(nil, room_jid, had_begun) > 0;
end

local function do_kick(order, room_jid, room, had_begun)
	local reason = answers.presentable(order.reason, "You were removed from the meeting");
	local n, users = kick.carry_out(order, room_jid, room, reason, had_begun);
	if not n then return failed(users); end
	return n > 0 and { status = "done"; kicked = n; users = users } or absent;
end

local function do_end(order, room_jid, room, had_begun)
	local text = answers.presentable(order.reason, "The meeting was ended");
	if room then
		local ok, problem = ending.end_meeting(room, "ended-by-service", text, text);
		if not ok then return failed(problem); end
	end
	local was_being_made = ask_again_about(room_jid, had_begun);
	return (room or was_being_made) and { status = "done"; ended = true } or absent;
end

local function do_refresh(order, room_jid, room, had_begun, done)
	if room then return refresh.carry_out(order, room, done); end
	return ask_again_about(room_jid, had_begun) and { status = "done"; refreshed = true } or absent;
end

local function do_who(_, _, room)
	return room and { status = "done"; occupants = who.list(room) } or absent;
end

local function do_forget(order, room_jid, _, had_begun)
	if is_given(order.user) and not people.names_meant_by(order.user) then return failed("user: no name"); end
	return { status = "done"; forgotten = forget.carry_out(order.user, room_jid, had_begun) };
end

local verbs = { kick = do_kick; ["end"] = do_end; refresh = do_refresh; who = do_who; forget = do_forget };

-- The outcome, or nil if `done` gets it later.
local function run(order, done)
	local verb = verbs[order.verb];
	if not verb then return failed("an unknown verb: "..tostring(order.verb)); end
	local is_about_all = order.verb == "forget" and not is_given(order.room);
	if not is_about_all and type(order.room) ~= "string" then return failed("room: a name or a JID is needed"); end
	local had_begun = had_begun_before(order);
	if is_about_all then return verb(order, nil, nil, had_begun); end
	local room_jid = room_jid_of(order);
	local room = room_jid and living_room(room_jid);
	if not room_jid or room and not had_begun(rooms.life_began_at(room)) then return absent; end
	return verb(order, room_jid, room, had_begun, done);
end

local function log(id, order, outcome)
	module:log("info", "Order %s (%s, %s): %s%s", id, tostring(order.verb), type(order.room) == "string" and order.room
		or "all rooms", outcome.status, outcome.error and ": "..outcome.error or "");
end

-- Calls done(outcome) once; for all verbs but `refresh` before it returns.
local function carry_out(id, order, done)
	local entry = state.orders:get(id);
	if entry and entry.outcome then return done(entry.outcome); end
	if entry then return table.insert(entry.waiting, done); end
	entry = { waiting = { done } };
	if order.verb ~= "who" then state.orders:set(id, entry); end -- that one changes nothing, and its outcome can be long

	local function finish(outcome)
		if entry.outcome then return; end
		entry.outcome = outcome;
		-- It has changed nothing. If the sidecar was away, it gives the order again when it is back.
		if order.verb == "refresh" and outcome.status == "failed" then state.orders:set(id, nil); end
		log(id, order, outcome);
		for _, each in ipairs(entry.waiting) do safely("Reporting on order "..id, each, outcome); end
		entry.waiting = nil;
	end

	local outcome;
	if not safely("Order "..id, function () outcome = run(order, finish); end) then
		outcome = failed("an error in the module; Prosody's log has it");
	end
	if outcome then finish(outcome); end
end

local function new(need)
	state, safely, people, rooms, answers = need.state, need.safely, need.people, need.rooms, need.answers;
	ending, kick, refresh, forget, who = need.ending, need.kick, need.refresh, need.forget, need.who;
	return { carry_out = carry_out };
end

return { version = "0.2.0"; new = new };
