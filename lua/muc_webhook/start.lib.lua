-- Builds the gate out of its parts, puts its hooks in, and takes it down again.
--
-- The guard loads each library once and calls `start`. A library only defines; what it needs of the others is handed
-- to it here, and none needs a part that is built after it.

local names = {
	"options"; "state"; "metrics"; "visitors"; "texts"; "identifiers"; "people"; "rooms"; "connections"; "http";
	"webhook"; "answers"; "messages"; "setting_types"; "config"; "decisions"; "login_only"; "locks"; "room_setup";
	"members_only"; "lobby"; "wait_for_host"; "duration"; "records"; "access"; "breakout_rooms"; "gate"; "limit";
	"occupants"; "queue"; "events"; "recordings"; "attendance"; "neighbours"; "shell";
};

-- For what must not take its surroundings along when it fails.
local function safely(what, f, ...)
	local ok, err = xpcall(f, debug.traceback, ...);
	if not ok then module:log("error", "%s failed: %s", what, err); end
	return ok;
end

local function build(libraries, saved)
	local options = libraries.options.new();
	local state = libraries.state.new(saved);
	local metrics = libraries.metrics.new { state = state };
	local visitors = libraries.visitors.new();
	local texts, identifiers = libraries.texts.new(), libraries.identifiers.new();
	local people = libraries.people.new {
		options = options, visitors = visitors, texts = texts, identifiers = identifiers,
	};
	local rooms = libraries.rooms.new { state = state, people = people };

	local connections = libraries.connections.new { safely = safely };
	local http = libraries.http.new { safely = safely, connections = connections };
	local webhook = libraries.webhook.new { options = options, state = state, metrics = metrics, http = http };
	local answers, messages = libraries.answers.new { texts = texts }, libraries.messages.new();

	local settings = libraries.setting_types.new { options = options, texts = texts, identifiers = identifiers };
	local config = libraries.config.new { answers = answers, settings = settings, messages = messages };
	local decisions = libraries.decisions.new { state = state, answers = answers, texts = texts, settings = settings };
	local login_only = libraries.login_only.new { people = people, messages = messages };
	local locks = libraries.locks.new { rooms = rooms };
	local setup = libraries.room_setup.new {
		options = options, settings = settings, locks = locks, login_only = login_only, visitors = visitors,
	};
	local members_only = libraries.members_only.new { rooms = rooms, locks = locks, setup = setup };
	local lobby = libraries.lobby.new {
		rooms = rooms, decisions = decisions, locks = locks, setup = setup, messages = messages,
	};
	local wait_for_host = libraries.wait_for_host.new { rooms = rooms, setup = setup, members_only = members_only };
	local duration = libraries.duration.new {
		options = options, safely = safely, people = people, rooms = rooms, decisions = decisions,
		messages = messages,
	};
	local records = libraries.records.new {
		state = state, options = options, safely = safely, people = people, rooms = rooms, webhook = webhook,
		config = config, setup = setup, locks = locks, members_only = members_only, on_config = duration.start,
	};

	local access = libraries.access.new {
		state = state, options = options, safely = safely, people = people, rooms = rooms, webhook = webhook,
		answers = answers, decisions = decisions, config = config, records = records,
	};
	local breakout_rooms = libraries.breakout_rooms.new { state = state, people = people, rooms = rooms };
	local gate = libraries.gate.new {
		state = state, options = options, metrics = metrics, people = people, rooms = rooms, records = records,
		access = access, decisions = decisions, login_only = login_only, breakout_rooms = breakout_rooms, messages = messages,
	};
	local occupants = libraries.occupants.new {
		people = people, rooms = rooms, records = records, setup = setup, visitors = visitors,
		decisions = decisions,
	};
	local limit = libraries.limit.new { state = state, people = people, rooms = rooms };

	local queue = libraries.queue.new {
		state = state, options = options, metrics = metrics, http = http, answers = answers,
	};
	local events = libraries.events.new {
		state = state, options = options, safely = safely, rooms = rooms, queue = queue,
	};
	local recordings = libraries.recordings.new { state = state, people = people, rooms = rooms, events = events };
	local attendance = libraries.attendance.new {
		state = state, safely = safely, people = people, rooms = rooms, decisions = decisions, events = events,
		recordings = recordings,
	};
	local neighbours = libraries.neighbours.new();
	local shell = libraries.shell.new {
		state = state, options = options, rooms = rooms, settings = settings, neighbours = neighbours,
	};

	return {
		options = options, state = state, settings = settings, config = config, rooms = rooms,
		connections = connections, http = http,
		locks = locks, members_only = members_only, lobby = lobby, wait_for_host = wait_for_host, duration = duration,
		records = records, breakout_rooms = breakout_rooms, gate = gate, limit = limit, occupants = occupants, queue = queue,
		events = events, recordings = recordings, attendance = attendance, neighbours = neighbours, shell = shell,
	};
end

-- What decides: an error in here fails the join. mod_muc tracks a new room at -1000.
local function deciding_hooks(parts)
	local records, occupants, attendance, limit = parts.records, parts.occupants, parts.attendance, parts.limit;
	return {
		{ "muc-room-pre-create", -999, records.on_pre_create }; -- after mod_muc's defaults and the creator's wishes
		{ "muc-occupant-pre-join", 11, limit.on_pre_join }; -- before Jitsi's limit, rate and queue
		{ "muc-occupant-pre-change", 11, limit.on_pre_change };
		{ "muc-occupant-pre-join", 10, parts.lobby.on_pre_join }; -- before whatever leads past a lobby
		{ "muc-pre-set-affiliation", 0, occupants.keep_moderator };
		{ "muc-occupant-pre-join", -3, occupants.give_affiliation };
		{ "muc-occupant-pre-join", -3.8, parts.wait_for_host.show_seal }; -- when the other modules have decided
		-- Once more after Jitsi's token_affiliation, at -3.5. One handler cannot be there twice.
		{ "muc-occupant-pre-join", -3.85, function (event) return occupants.give_affiliation(event); end };
		{ "muc-occupant-pre-join", -3.9, parts.members_only.make_member }; -- before the lobby, at -4, and members-only, at -5
		{ "muc-occupant-left", -0.4, attendance.keep_room_of_new_nick }; -- before mod_muc destroys it, at -1
	};
end

-- What only watches: an error in here must not spoil the join that it watches.
local function watching_hooks(parts)
	local members_only, records, duration = parts.members_only, parts.records, parts.duration;
	local attendance, recordings = parts.attendance, parts.recordings;
	return {
		{ "muc-occupant-pre-join", -999, attendance.on_pre_join };
		{ "muc-invite", 1, parts.lobby.on_invite }; -- before it is sent
		{ "muc-set-affiliation", 0, parts.lobby.on_affiliation };
		{ "muc-room-pre-create", 0.5, members_only.on_pre_create }; -- right after mod_muc's defaults, at 1
		{ "muc-room-pre-create", -1001, records.on_tracked }; -- the room can be saved now
		{ "muc-room-restored", 0, records.on_restored }; -- it is another object now
		{ "room_host_arrived", 0, parts.wait_for_host.on_host_arrived }; -- then it opens the room
		{ "muc-occupant-joined", 1, duration.on_joined }; -- before the event is sent
		{ "muc-occupant-joined", 0, parts.breakout_rooms.on_joined };
		{ "muc-occupant-joined", -1, parts.wait_for_host.on_joined }; -- the host is an owner now
		{ "muc-occupant-session-new", 10, parts.occupants.greet }; -- after history and subject
		{ "muc-broadcast-presence", 0, parts.breakout_rooms.on_presence };
		{ "muc-broadcast-presence", 0, attendance.on_presence }; -- joins, roles and removals show in it
		{ "muc-broadcast-presence", 0, recordings.on_presence };
		{ "muc-occupant-left", 0, attendance.on_left }; -- the occupant is out
		{ "muc-occupant-left", 0, parts.limit.on_left };
		{ "muc-occupant-left", 0, parts.lobby.on_left };
		{ "muc-occupant-left", 0, parts.occupants.on_left };
		{ "muc-occupant-left", -0.5, duration.on_left }; -- before mod_muc destroys an empty room, at -1
		{ "muc-room-destroyed", 5, records.on_destroyed }; -- before mod_muc forgets the room, at 0
		{ "muc-room-destroyed", 5, attendance.on_destroyed }; -- likewise
	};
end

local function end_questions(parts)
	parts.http.end_all(parts.state.questions);
end

local function put_hooks_in(parts)
	for _, hook in ipairs(deciding_hooks(parts)) do
		local event_name, priority, handler = table.unpack(hook);
		module:hook(event_name, handler, priority);
	end
	parts.breakout_rooms.start();
	module:wrap_event("muc-occupant-pre-join", parts.wait_for_host.around_pre_join);
	local watching = watching_hooks(parts);
	for _, hook in ipairs(parts.locks.form_hooks()) do table.insert(watching, hook); end
	for _, hook in ipairs(watching) do
		local event_name, priority, handler = table.unpack(hook);
		module:hook(event_name, function (event) safely(event_name, handler, event); end, priority);
	end
	module:hook_global("jitsi-breakout-occupant-leaving", function (event)
		safely("jitsi-breakout-occupant-leaving", parts.limit.on_leaving_breakout_room, event);
	end);
	module:hook_global("server-stopping", function () end_questions(parts); end, 10); -- while there are streams
	module:hook_global("server-stopped", function ()
		parts.attendance.save();
		parts.queue.save();
	end);
end

local function report(options)
	for _, problem in ipairs(options.problems) do
		module:log("error", "%s. Every join is refused until this is fixed.", problem);
	end
	for _, hint in ipairs(options.advice) do module:log("warn", "%s", hint); end
	if options.are_wrong and module.set_status then module:set_status("error", options.problems[1]); end
end

local function resume(parts)
	for room in parts.rooms.muc().live_rooms() do safely("Visiting "..room.jid, parts.duration.start, room); end
	safely("Visiting the rooms with a limit", parts.records.rearm);
end

local function stop(parts, reloading)
	parts.events.send_all_held_joins();
	parts.queue.stop_timer();
	for _, life in pairs(parts.state.lives) do parts.rooms.stop_timer(life); end
	parts.connections.pool.close();
	if reloading then return; end
	parts.attendance.save();
	parts.state.stopped = true;
	end_questions(parts);
	parts.http.end_all(parts.state.deliveries);
	parts.queue.save();
end

-- `saved` is the state of the gate before a reload.
local function start(libraries, saved)
	local parts = build(libraries, saved);
	report(parts.options);
	safely("Looking for other modules", parts.neighbours.report);
	parts.locks.watch_setters();
	put_hooks_in(parts);
	parts.queue.resume();
	parts.shell.add_commands();
	if saved then
		resume(parts);
	else
		safely("Taking back the events of an earlier run", parts.queue.restore);
		safely("Taking back who was in", parts.attendance.restore);
		safely("Looking for rooms from before", parts.members_only.adopt_rooms_from_before);
	end
	safely("Looking who is in", parts.attendance.start);
	return {
		admit = parts.gate.admit; status = parts.shell.print_status; room = parts.shell.print_room;
		save = function () return parts.state; end;
		stop = function (reloading) stop(parts, reloading); end;
		parts = parts; -- for tests
	};
end

return { version = "0.2.0"; parts = names; start = start };
