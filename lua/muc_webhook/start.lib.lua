-- Builds the gate out of its parts, puts its hooks in, and takes it down again.
--
-- The guard loads each library once and calls `start`. A library only defines; what it needs of the others is handed
-- to it here, and none needs a part that is built after it.

local names = {
	"options"; "state"; "metrics"; "visitors"; "texts"; "identifiers"; "people"; "rooms"; "bosh"; "held"; "answers";
	"http"; "connection"; "link"; "deadlines"; "webhook"; "messages"; "queue"; "events"; "recordings";
	"setting_types"; "config"; "decisions"; "login_only"; "forbidden"; "metadata"; "features"; "auto_record";
	"locks"; "room_setup"; "members_only"; "lobby"; "wait_for_host"; "ending"; "duration"; "records"; "access";
	"who"; "breakout_rooms"; "put_out"; "lobby_entry"; "gate"; "limit"; "occupants"; "attendance"; "neighbours";
	"shell"; "kick"; "refresh"; "forget"; "orders";
};

local traceback = debug.traceback;

local function log_failure(what, err, about)
	local room_jid = type(about) == "table" and type(about.jid) == "string" and about.jid;
	module:log("error", "%s%s failed: %s", what, room_jid and " of "..room_jid or "", err);
end

-- For what must not take its surroundings along when it fails. If it is about a room, that is its first argument.
local function safely(what, f, ...)
	local ok, err = xpcall(f, traceback, ...);
	if not ok then log_failure(what, err, (...)); end
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
	local held = libraries.held.new { state = state, people = people, bosh = libraries.bosh.new() };

	local answers, messages = libraries.answers.new { texts = texts }, libraries.messages.new();
	local queue, orders; -- built after the link, over which they send
	local http = libraries.http.new { safely = safely };
	local link = libraries.link.new {
		options = options, state = state, metrics = metrics, answers = answers,
		carry_out = function (...) return orders.carry_out(...); end, on_up = function () queue.go_on(); end,
		version = libraries.start.version,
		connections = libraries.connection.new { options = options, safely = safely, answers = answers, http = http },
	};
	local webhook = libraries.webhook.new {
		options = options, state = state, metrics = metrics, safely = safely, http = http, link = link,
		deadlines = libraries.deadlines.new(),
	};

	queue = libraries.queue.new {
		state = state, options = options, metrics = metrics, webhook = webhook, answers = answers,
	};
	local events = libraries.events.new {
		state = state, options = options, safely = safely, rooms = rooms, queue = queue,
	};
	local recordings = libraries.recordings.new { state = state, people = people, rooms = rooms, events = events };

	local settings = libraries.setting_types.new { options = options, texts = texts, identifiers = identifiers };
	local config = libraries.config.new { answers = answers, settings = settings, messages = messages };
	local decisions = libraries.decisions.new { state = state, answers = answers, texts = texts, settings = settings };
	local login_only = libraries.login_only.new { people = people, messages = messages };
	local forbidden = libraries.forbidden.new {
		rooms = rooms, people = people, visitors = visitors, settings = settings,
	};
	local metadata = libraries.metadata.new { rooms = rooms, forbidden = forbidden, config = config, settings = settings };
	local features = libraries.features.new { forbidden = forbidden };
	local auto_record = libraries.auto_record.new {
		state = state, safely = safely, people = people, rooms = rooms, visitors = visitors, settings = settings,
		recordings = recordings, forbidden = forbidden,
	};
	local locks = libraries.locks.new { rooms = rooms };
	local setup = libraries.room_setup.new {
		options = options, config = config, settings = settings, locks = locks, login_only = login_only,
		visitors = visitors,
	};
	local members_only = libraries.members_only.new { rooms = rooms, locks = locks, setup = setup };
	local lobby = libraries.lobby.new {
		rooms = rooms, decisions = decisions, locks = locks, setup = setup, messages = messages,
	};
	local wait_for_host = libraries.wait_for_host.new { rooms = rooms, setup = setup, members_only = members_only };
	local ending = libraries.ending.new { people = people, rooms = rooms, messages = messages };
	local duration = libraries.duration.new {
		options = options, safely = safely, people = people, rooms = rooms, decisions = decisions,
		messages = messages, ending = ending,
	};
	local records = libraries.records.new {
		state = state, options = options, safely = safely, people = people, rooms = rooms, held = held, webhook = webhook,
		config = config, setup = setup, metadata = metadata, locks = locks, members_only = members_only,
		on_config = function (room)
			for _, part in ipairs { duration.start, features.on_config, auto_record.on_config } do part(room); end
		end;
	};

	local access = libraries.access.new {
		state = state, options = options, safely = safely, people = people, rooms = rooms, held = held, webhook = webhook,
		decisions = decisions, config = config, records = records,
	};
	local who = libraries.who.new { state = state, people = people, rooms = rooms };
	local breakout_rooms = libraries.breakout_rooms.new {
		state = state, people = people, rooms = rooms, who = who, forbidden = forbidden, metadata = metadata,
	};
	local put_out = libraries.put_out.new { state = state, people = people, rooms = rooms, metrics = metrics };
	local lobby_entry = libraries.lobby_entry.new {
		people = people, rooms = rooms, put_out = put_out, breakout_rooms = breakout_rooms,
	};
	local gate = libraries.gate.new {
		state = state, options = options, metrics = metrics, people = people, rooms = rooms, held = held,
		records = records, access = access, decisions = decisions, login_only = login_only,
		breakout_rooms = breakout_rooms, messages = messages, put_out = put_out, lobby_entry = lobby_entry,
	};
	local occupants = libraries.occupants.new {
		people = people, rooms = rooms, records = records, setup = setup, visitors = visitors,
		decisions = decisions,
	};
	local limit = libraries.limit.new { state = state, people = people, rooms = rooms };

	local attendance = libraries.attendance.new {
		state = state, safely = safely, people = people, rooms = rooms, decisions = decisions, events = events,
		recordings = recordings,
	};
	local neighbours = libraries.neighbours.new();
	local shell = libraries.shell.new {
		state = state, options = options, rooms = rooms, settings = settings, neighbours = neighbours,
		link = link,
	};

	local kick = libraries.kick.new {
		people = people, rooms = rooms, held = held, put_out = put_out, breakout_rooms = breakout_rooms, setup = setup,
		messages = messages,
	};
	local refresh = libraries.refresh.new {
		state = state, safely = safely, rooms = rooms, held = held, records = records, config = config,
		settings = settings, members_only = members_only, occupants = occupants,
	};
	local forget = libraries.forget.new { state = state, people = people, held = held, records = records };
	orders = libraries.orders.new {
		state = state, safely = safely, people = people, rooms = rooms, answers = answers, ending = ending, kick = kick,
		refresh = refresh, forget = forget, who = who,
	};

	return {
		options = options, state = state, settings = settings, config = config, rooms = rooms,
		webhook = webhook, link = link,
		forbidden = forbidden, metadata = metadata, features = features, auto_record = auto_record,
		locks = locks, members_only = members_only, lobby = lobby, wait_for_host = wait_for_host, duration = duration,
		records = records, breakout_rooms = breakout_rooms, gate = gate, limit = limit, occupants = occupants, queue = queue,
		events = events, recordings = recordings, attendance = attendance, neighbours = neighbours, shell = shell, who = who,
		put_out = put_out, lobby_entry = lobby_entry, orders = orders,
	};
end

-- What decides: an error in here fails the join. mod_muc tracks a new room at -1000.
local function deciding_hooks(parts)
	local records, occupants, attendance, limit = parts.records, parts.occupants, parts.attendance, parts.limit;
	return {
		{ "muc-room-pre-create", -999, records.on_pre_create }; -- after mod_muc's defaults and the creator's wishes
		{ "muc-occupant-pre-join", 12, parts.put_out.on_pre_join };
		{ "muc-occupant-pre-join", 11, limit.on_pre_join }; -- before Jitsi's limit, rate and queue
		{ "muc-occupant-pre-change", 11, limit.on_pre_change };
		{ "muc-occupant-pre-join", 10, parts.lobby.on_pre_join }; -- before whatever leads past a lobby
		{ "muc-pre-set-affiliation", 0, occupants.keep_moderator };
		{ "muc-occupant-pre-join", -3, occupants.give_affiliation };
		{ "muc-occupant-pre-join", -3.3, parts.wait_for_host.show_seal }; -- when the other modules have decided
		-- Before the lobby, at -4, and members-only, at -5; and before Jitsi's token_affiliation, at -3.5, which makes
		-- owners only of members where only members get in.
		{ "muc-occupant-pre-join", -3.4, parts.members_only.make_member };
		-- Once more after token_affiliation. One handler cannot be there twice.
		{ "muc-occupant-pre-join", -3.8, function (event) return occupants.give_affiliation(event); end };
		{ "iq/full", 1, parts.auto_record.on_iq };
		{ "muc-occupant-left", -0.4, attendance.keep_room_of_new_nick }; -- before mod_muc destroys it, at -1
	};
end

-- What only watches: an error in here must not spoil the join that it watches.
local function watching_hooks(parts)
	local members_only, records, duration = parts.members_only, parts.records, parts.duration;
	return {
		{ "muc-invite", 1, parts.lobby.on_invite }; -- before it is sent
		{ "muc-set-affiliation", 0, parts.lobby.on_affiliation };
		{ "muc-room-pre-create", 0.5, members_only.on_pre_create }; -- right after mod_muc's defaults, at 1
		{ "muc-room-pre-create", 0.4, parts.rooms.on_new_room };
		{ "muc-room-created", 0, parts.rooms.on_new_room }; -- by code, without a join
		{ "muc-room-pre-create", -1001, records.on_tracked }; -- the room can be saved now
		{ "muc-room-restored", 1, parts.metadata.on_restored }; -- it is another object now
		{ "muc-room-restored", 0, records.on_restored };
		{ "muc-occupant-pre-join", -100, parts.features.on_pre_join }; -- who has come that far gets in
		{ "room_host_arrived", 0, parts.wait_for_host.on_host_arrived }; -- then it opens the room
		{ "muc-occupant-joined", 1, duration.on_joined }; -- before the event is sent
		{ "muc-occupant-joined", 0, parts.breakout_rooms.on_joined };
		{ "muc-occupant-joined", 0, parts.who.on_joined };
		{ "muc-occupant-joined", -1, parts.wait_for_host.on_joined }; -- the host is an owner now
		{ "muc-occupant-session-new", 10, parts.occupants.greet }; -- after history and subject
		{ "muc-broadcast-presence", 0, parts.breakout_rooms.on_presence };
		{ "muc-broadcast-presence", 0, parts.lobby_entry.on_presence };
		{ "muc-broadcast-presence", -1, parts.auto_record.on_presence };
		{ "muc-occupant-left", 0, parts.who.on_left };
		{ "muc-occupant-left", 0, parts.limit.on_left };
		{ "muc-occupant-left", 0, parts.lobby.on_left };
		{ "muc-occupant-left", 0, parts.occupants.on_left };
		{ "muc-occupant-left", -0.5, duration.on_left }; -- before mod_muc destroys an empty room, at -1
		{ "muc-room-destroyed", 5, records.on_destroyed }; -- before mod_muc forgets the room, at 0
		{ "muc-room-destroyed", 5, parts.attendance.on_destroyed }; -- likewise
	};
end

-- Likewise, and only for events.
local function hooks_for_events(parts)
	local attendance = parts.attendance;
	return {
		{ "muc-occupant-pre-join", -999, attendance.on_pre_join };
		{ "muc-broadcast-presence", 0, attendance.on_presence }; -- joins, roles and removals show in it
		{ "muc-broadcast-presence", 0, parts.recordings.on_presence };
		{ "muc-set-affiliation", 0, attendance.on_affiliation };
		{ "muc-occupant-left", 0, attendance.on_left }; -- the occupant is out
	};
end

local function put_hooks_in(parts)
	local deciding = deciding_hooks(parts);
	for _, hook in ipairs(parts.forbidden.hooks(parts.rooms.of)) do table.insert(deciding, hook); end
	for _, hook in ipairs(deciding) do
		local event_name, priority, handler = table.unpack(hook);
		module:hook(event_name, handler, priority);
	end
	parts.metadata.start(parts.breakout_rooms.main_room_of);
	for _, part in ipairs { parts.breakout_rooms, parts.lobby_entry, parts.forbidden } do part.start(); end
	module:wrap_event("muc-occupant-pre-join", parts.wait_for_host.around_pre_join);
	local watching = watching_hooks(parts);
	for _, hook in ipairs(parts.locks.form_hooks()) do table.insert(watching, hook); end
	if next(parts.options.events) then
		for _, hook in ipairs(hooks_for_events(parts)) do table.insert(watching, hook); end
	end
	for _, hook in ipairs(watching) do
		local event_name, priority, handler = table.unpack(hook);
		module:hook(event_name, function (event)
			local ok, err = xpcall(handler, traceback, event);
			if not ok then log_failure(event_name, err, event.room); end
		end, priority);
	end
	module:hook_global("jitsi-breakout-occupant-leaving", function (event)
		safely("jitsi-breakout-occupant-leaving", parts.limit.on_leaving_breakout_room, event);
	end);
	module:hook_global("server-stopping", parts.webhook.end_questions, 10); -- while there are streams
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
	parts.auto_record.stop();
	if reloading then return parts.link.retire(); end
	parts.attendance.save();
	parts.state.stopped = true;
	parts.webhook.end_questions();
	parts.webhook.end_events();
	parts.link.stop();
	parts.queue.save();
end

-- `saved` is the state of the gate before a reload.
local function start(libraries, saved)
	local parts = build(libraries, saved);
	report(parts.options);
	safely("Looking for other modules", parts.neighbours.report);
	parts.locks.watch_setters();
	put_hooks_in(parts);
	parts.link.start();
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
	if not saved then safely("Looking for meetings from before", parts.breakout_rooms.adopt_rooms_from_before); end
	for room in parts.rooms.muc().live_rooms() do safely("Visiting "..room.jid, parts.auto_record.on_config, room); end
	return {
		admit = parts.gate.admit; status = parts.shell.print_status; room = parts.shell.print_room;
		save = function () return parts.state; end;
		stop = function (reloading) stop(parts, reloading); end;
		parts = parts; -- for tests
	};
end

return { version = "0.2.0"; parts = names; start = start };
