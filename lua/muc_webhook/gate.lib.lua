-- Decides about a join before mod_muc hears of it.
--
--   presence/full ──> guard ──> gate ──> POST validate-access ──> POST room-created ──> mod_muc makes the join
--                                │             │ no                    │ once in the life of a room
--                                │             └──> error to the user  └──> applied before anybody is in
--                                └── the user's own session waits here; nobody else does
--
-- The gate is in front of mod_muc (which handles presence/full at -2). A refused user was then never an occupant, and
-- a room that must not be was never made. Inside mod_muc it would be too late: its hooks cannot wait without making
-- two objects of one room, leaving empty rooms behind or joining rooms that are gone.

local async = require "util.async";
local jid = require "util.jid";
local st = require "util.stanza";

local xmlns_muc = "http://jabber.org/protocol/muc";
local unavailable_text = "The meeting service cannot be reached. Please try again in a moment.";

-- Handed over by start.lib.lua.
local state, options, metrics, people, rooms, held, records, access, decisions, login_only, breakout_rooms, messages;
local put_out, lobby_entry;
local muc; -- as it was when this gate was started
local creation, creation_domain; -- who may make rooms

local function refuse(event, room_jid, kind, condition, text)
	event.origin.send(st.error_reply(event.stanza, kind, condition, text, room_jid));
end

-- While the join waited its user may have gone. Never ask for the connection: with stream management a session
-- lives on without one.
local function is_gone(event, ticket)
	local origin = event.origin;
	return origin.destroyed or ticket.cancelled
		or (origin.full_jid ~= nil and origin.full_jid ~= event.stanza.attr.from);
end

-- Nothing is to be made of the answer that the join has waited for.
local function is_overtaken(event, ticket)
	return is_gone(event, ticket) or ticket.refusal ~= nil or ticket.is_to_be_asked_again;
end

-- Jitsi's frontend does not show the text of an error. A script in the page can read this before the error comes.
-- Remote users and those of components have no such page.
local function explain_refusal(event, room_jid, refusal)
	if event.origin.type ~= "c2s" then return; end
	event.origin.send(messages.data(room_jid, event.stanza.attr.from, refusal));
end

local function is_refused_by_decision(event, room_jid, decision)
	if decision.verdict == "deny" then
		metrics.count_join("denied");
		breakout_rooms.on_denied(room_jid, jid.bare(event.stanza.attr.from));
		lobby_entry.on_denied(room_jid, jid.bare(event.stanza.attr.from));
		module:log("info", "A join into %s was denied: %s", room_jid, decision.reason);
		explain_refusal(event, room_jid, decision.refusal);
		event.origin.send(messages.refusal(event.stanza, room_jid, decision.refusal));
		return true;
	elseif decision.verdict == "unavailable" then
		local fail_open = options.fail_open;
		metrics.count_join("unavailable");
		module:log("warn", "No decision about a join into %s (%s)%s", room_jid, decision.reason,
			fail_open and ", let in" or "");
		if not fail_open then refuse(event, room_jid, "wait", "remote-server-timeout", unavailable_text); end
		return not fail_open;
	end
	return false;
end

-- The room may be destroyed, and made again, under those who wait for its config. Then it is asked for once more.
local function await_record(event, room_jid, user_jid, ticket, record)
	for _ = 1, 3 do
		record = record or records.await(room_jid, user_jid, ticket);
		if record.state ~= "ready" or state.records[room_jid] == record or is_overtaken(event, ticket) then return record; end
		record = nil;
	end
	return nil;
end

local function is_refused_by_record(event, room_jid, record)
	if record and record.state == "refused" then
		metrics.count_join("refused");
		explain_refusal(event, room_jid, { type = "JOIN_REFUSED"; reason = record.reason });
		refuse(event, room_jid, "cancel", "not-allowed", record.reason);
		return true;
	elseif not record or record.state ~= "ready" then
		metrics.count_join("unavailable");
		refuse(event, room_jid, "wait", "remote-server-timeout", unavailable_text);
		return true;
	end
	return false;
end

local function is_refused_as_guest(event, record)
	if not login_only.refuses(event, record) then return false; end
	metrics.count_join("denied");
	module:log("info", "A join into %s was denied: it is not public", record.jid);
	return true;
end

-- mod_muc would make the room first and ask for the password then, and leave the room behind.
local function lacks_password_of_new_room(event, room_jid, record)
	local password = record.settings and record.settings.password;
	if not password or password == "" then return false; end
	if event.stanza:get_child("x", xmlns_muc):get_child_text("password", xmlns_muc) == password then return false; end
	refuse(event, room_jid, "auth", "not-authorized");
	return true;
end

-- Only in an async context. Returns true if the join ends here; otherwise it may go on to mod_muc.
local function decide_by_answers(event, room_jid, ticket)
	if is_refused_as_guest(event, records.known(room_jid)) then return true; end
	local user_jid = jid.bare(event.stanza.attr.from);
	local question = access.question_about(event.origin, event.stanza, room_jid, user_jid);
	local decision, record = access.ask(room_jid, user_jid, question, ticket);
	if is_overtaken(event, ticket) or is_refused_by_decision(event, room_jid, decision) then return true; end

	if decision.configuration and not (record and record.state == "refused") then
		record = records.offer(room_jid, user_jid, decision.configuration);
		if record and record.state == "pending" then record = nil; end
	end
	record = await_record(event, room_jid, user_jid, ticket, record);
	if is_overtaken(event, ticket) or is_refused_by_record(event, room_jid, record) then return true; end
	if is_refused_as_guest(event, record) then return true; end

	local room = rooms.of(room_jid);
	if room then
		records.apply(record, room);
	elseif lacks_password_of_new_room(event, room_jid, record) then
		return true;
	end
	decisions.remember(event.stanza, decision);
	put_out.on_let_in(event, room_jid);
	lobby_entry.on_let_in(event, room_jid);
	metrics.count_join("allowed");
	return false;
end

local function refuse_as_ordered(event, room_jid, reason)
	metrics.count_join("denied");
	module:log("info", "A join into %s was refused by an order: %s", room_jid, reason);
	explain_refusal(event, room_jid, { type = "JOIN_REFUSED"; reason = reason; status = "KICKED" });
	refuse(event, room_jid, "cancel", "not-allowed", reason);
end

-- An order that comes meanwhile counts more than the answers.
local function decide(event, room_jid, ticket)
	local ended;
	repeat
		ticket.is_to_be_asked_again = false;
		ended = decide_by_answers(event, room_jid, ticket);
		if is_gone(event, ticket) then return true; end
	until ticket.refusal or not ticket.is_to_be_asked_again;
	if ticket.refusal then refuse_as_ordered(event, room_jid, ticket.refusal); end
	return ended;
end

-- An error in here refuses the join.
local function decide_safely(event, room_jid, ticket)
	metrics.add_pending_joins(1);
	local ok, ended = xpcall(decide, debug.traceback, event, room_jid, ticket);
	metrics.add_pending_joins(-1);
	held.let_go(ticket);
	if not ok then
		module:log("error", "A join into %s failed: %s", room_jid, ended);
		refuse(event, room_jid, "wait", "internal-server-error");
		return true;
	end
	return ended;
end

local function let_through(event_name, event)
	state.grants[event.stanza] = true;
	module:fire_event(event_name, event);
end

-- The stanzas of all users of a component or of another server share one thread, and those sent from a timer have
-- none: waiting there would hold up other users. Their joins wait in a thread of their own and are sent through again afterwards.
local function decide_detached(event_name, event, room_jid)
	local key = event.stanza.attr.from.."\0"..room_jid;
	if state.detached[key] then state.detached[key].cancelled = true; end
	local ticket = held.hold(event, room_jid);
	state.detached[key] = ticket;
	async.runner(function ()
		local ended = decide_safely(event, room_jid, ticket);
		if state.detached[key] == ticket then state.detached[key] = nil; end
		if not ended then let_through(event_name, event); end
	end, {
		error = function (_, err) module:log("error", "A join into %s failed: %s", room_jid, err); end;
	}):run(true);
end

-- The sender's own thread may wait.
local function decide_in_thread(event_name, event, room_jid)
	if decide_safely(event, room_jid, held.hold(event, room_jid)) then return true; end
	if rooms.muc() == muc and not state.stopped then return nil; end
	-- Meanwhile mod_muc was reloaded or unloaded, and this event would still go to its old self; or this gate was
	-- stopped, and another one or the guard decides.
	let_through(event_name, event);
	return true;
end

local function cancel_detached(stanza, room_jid)
	local ticket = state.detached[stanza.attr.from.."\0"..room_jid];
	if ticket and (stanza.attr.type == "unavailable" or stanza.attr.type == "error") then ticket.cancelled = true; end
end

-- Whether mod_muc would refuse to make the room anyhow: then there is nothing to ask for.
local function may_create(event)
	if not creation then return true; end
	if module.may then return module:may("muc:create-room", event, true); end
	return creation == "local" and jid.host(event.stanza.attr.from) == creation_domain;
end

local function is_answered_by_muc(event, room_jid)
	local room = rooms.muc().get_room_from_jid(room_jid);
	if room == false then return true; end -- it cannot be loaded
	if room and room._data.destroyed then
		if room._data.locked >= os.time() then return true; end -- it is gone
		room = nil;
	end
	if room then return room:get_occupant_jid(event.stanza.attr.from) ~= nil; end -- an update, a new nick or a resync
	return not jid.prep(room_jid, true) or not may_create(event);
end

-- Returns true if the presence ends here.
local function admit(event_name, event)
	local origin, stanza = event.origin, event.stanza;
	local node, domain, nick = jid.split(stanza.attr.to);
	local from, room_jid = stanza.attr.from, node and node.."@"..domain or domain;
	if stanza.attr.type ~= nil then return cancel_detached(stanza, room_jid); end
	if not stanza:get_child("x", xmlns_muc) then return; end -- no join; mod_muc says what it thinks of it
	if state.grants[stanza] then
		state.grants[stanza] = nil;
		return;
	end
	if people.is_exempt(from) then
		metrics.count_join("exempt");
		return;
	end
	if is_answered_by_muc(event, room_jid) then return; end
	if not nick then
		-- mod_muc would make a room, fail because of the missing nick, and leave the room behind.
		refuse(event, room_jid, "modify", "jid-malformed", "A nickname is needed");
		return true;
	end
	if options.are_wrong then
		local text = "The meeting service is not set up correctly on this server";
		refuse(event, room_jid, "wait", "internal-server-error", text);
		return true;
	end
	if origin.type == "c2s" and origin.thread and origin.thread.thread == coroutine.running() then
		return decide_in_thread(event_name, event, room_jid);
	end
	decide_detached(event_name, event, room_jid);
	return true;
end

local function new(need)
	state, options, metrics, people = need.state, need.options, need.metrics, need.people;
	rooms, records, access, login_only = need.rooms, need.records, need.access, need.login_only;
	decisions, breakout_rooms, messages = need.decisions, need.breakout_rooms, need.messages;
	held, put_out, lobby_entry = need.held, need.put_out, need.lobby_entry;
	muc = rooms.muc();
	creation = module:get_option("restrict_room_creation");
	creation_domain = module.host:gsub("^[^%.]+%.", "");
	return { admit = admit };
end

return { version = "0.2.0"; new = new };
