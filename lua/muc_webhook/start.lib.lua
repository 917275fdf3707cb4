-- Builds the gate out of its parts, puts its hooks in, and takes it down again.
--
-- The guard loads each library once and calls `start`. A library only defines; what it needs of the others is handed
-- to it here, and none needs a part that is built after it.

local names = {
	"options"; "state"; "metrics"; "texts"; "identifiers"; "people"; "rooms"; "connections"; "http"; "webhook"; "answers";
	"messages"; "setting_types"; "config"; "room_setup"; "members_only"; "duration"; "records"; "access"; "gate";
	"occupants"; "queue"; "events"; "shell";
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
	local texts, identifiers = libraries.texts.new(), libraries.identifiers.new();
	local people = libraries.people.new { options = options, texts = texts, identifiers = identifiers };
	local rooms = libraries.rooms.new { state = state, people = people };

	local connections = libraries.connections.new { safely = safely };
	local http = libraries.http.new { safely = safely, connections = connections };
	local webhook = libraries.webhook.new { options = options, state = state, metrics = metrics, http = http };
	local answers, messages = libraries.answers.new { texts = texts }, libraries.messages.new();

	local settings = libraries.setting_types.new { options = options, texts = texts, identifiers = identifiers };
	local config = libraries.config.new { answers = answers, settings = settings, messages = messages };
	local setup = libraries.room_setup.new { options = options, settings = settings };
	local members_only = libraries.members_only.new { rooms = rooms };
	local duration = libraries.duration.new {
		options = options, safely = safely, people = people, rooms = rooms, messages = messages,
	};
	local records = libraries.records.new {
		state = state, options = options, safely = safely, people = people, rooms = rooms, webhook = webhook,
		config = config, setup = setup, members_only = members_only, on_config = duration.start,
	};

	local access = libraries.access.new {
		state = state, options = options, safely = safely, people = people, rooms = rooms, webhook = webhook,
		answers = answers, texts = texts, config = config, records = records,
	};
	local gate = libraries.gate.new {
		state = state, options = options, metrics = metrics, people = people, rooms = rooms, records = records,
		access = access, messages = messages,
	};
	local occupants = libraries.occupants.new { people = people, rooms = rooms, records = records, setup = setup };

	local queue = libraries.queue.new {
		state = state, options = options, metrics = metrics, http = http, answers = answers,
	};
	local events = libraries.events.new {
		state = state, options = options, people = people, rooms = rooms, queue = queue,
	};
	local shell = libraries.shell.new { state = state, options = options, rooms = rooms, settings = settings };

	return {
		options = options, state = state, settings = settings, config = config, rooms = rooms,
		connections = connections, http = http, members_only = members_only, duration = duration, records = records,
		gate = gate, occupants = occupants, queue = queue, events = events, shell = shell,
	};
end

-- What decides: an error in here fails the join. mod_muc tracks a new room at -1000.
local function deciding_hooks(parts)
	local records, occupants = parts.records, parts.occupants;
	return {
		{ "muc-room-pre-create", -999, records.on_pre_create }; -- after mod_muc's defaults and the creator's wishes
		{ "muc-occupant-pre-join", 11, occupants.limit_participants }; -- before Jitsi's limit, rate and queue
		{ "muc-occupant-pre-join", -3, occupants.give_affiliation }; -- before the lobby and members-only
		-- Once more after Jitsi's token_affiliation, at -3.5. One handler cannot be there twice.
		{ "muc-occupant-pre-join", -3.9, function (event) return occupants.give_affiliation(event); end };
	};
end

-- What only watches: an error in here must not spoil the join that it watches.
local function watching_hooks(parts)
	local members_only, records, duration, events = parts.members_only, parts.records, parts.duration, parts.events;
	return {
		{ "muc-room-pre-create", 0.5, members_only.on_pre_create }; -- right after mod_muc's defaults, at 1
		{ "muc-room-pre-create", -1001, records.on_tracked }; -- the room can be saved now
		{ "muc-room-restored", 0, members_only.on_restored }; -- it is another object now
		{ "muc-config-submitted/muc#roomconfig_membersonly", 1, members_only.on_form }; -- before it takes effect
		{ "muc-occupant-joined", 1, duration.on_joined }; -- before the event is sent
		{ "muc-occupant-joined", 0, events.on_joined }; -- the occupant is in
		{ "muc-occupant-session-new", 10, parts.occupants.greet }; -- after history and subject
		{ "muc-broadcast-presence", 0, events.on_presence }; -- roles and removals show in it
		{ "muc-occupant-left", 0, events.on_left }; -- the occupant is out
		{ "muc-occupant-left", -0.5, duration.on_left }; -- before mod_muc destroys an empty room, at -1
		{ "muc-room-destroyed", 5, records.on_destroyed }; -- before mod_muc forgets the room, at 0
		{ "muc-room-destroyed", 5, events.on_destroyed }; -- likewise
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
	for _, hook in ipairs(watching_hooks(parts)) do
		local event_name, priority, handler = table.unpack(hook);
		module:hook(event_name, function (event) safely(event_name, handler, event); end, priority);
	end
	module:hook_global("server-stopping", function () end_questions(parts); end, 10); -- while there are streams
	module:hook_global("server-stopped", parts.queue.save);
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
	parts.queue.send();
end

local function stop(parts, reloading)
	parts.queue.stop_timer();
	for _, life in pairs(parts.state.lives) do parts.rooms.stop_timer(life); end
	parts.connections.pool.close();
	if reloading then return; end
	parts.state.stopped = true;
	end_questions(parts);
	parts.http.end_all(parts.state.deliveries);
	parts.queue.save();
end

-- `saved` is the state of the gate before a reload.
local function start(libraries, saved)
	local parts = build(libraries, saved);
	report(parts.options);
	put_hooks_in(parts);
	parts.shell.add_commands();
	if saved then
		resume(parts);
	else
		safely("Taking back the events of an earlier run", parts.queue.restore);
		safely("Looking for rooms from before", parts.members_only.mark_rooms_from_before);
	end
	return {
		admit = parts.gate.admit; status = parts.shell.print_status; room = parts.shell.print_room;
		save = function () return parts.state; end;
		stop = function (reloading) stop(parts, reloading); end;
		parts = parts; -- for tests
	};
end

return { version = "0.2.0"; parts = names; start = start };
