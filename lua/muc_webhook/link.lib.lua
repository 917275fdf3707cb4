-- The link to the sidecar: keeps one connection open, and is set up again after each failure.
--
-- There is none to a meeting service and to an older sidecar: they answer the handshake with an error, and are asked
-- over HTTP. After a reload the next gate has a link of its own; this one ends when nothing is under way on it.

local json = require "util.json";
local now = require "util.time".now;
local pposix = require "util.pposix";
local timer = require "util.timer";

local options, state, metrics, connections, carry_out, on_up, answers, version; -- handed over by start.lib.lua

local longest_pause, pause_without_link = 10, 300; -- seconds
local longest_outcome = 1000 * 1000; -- bytes; the sidecar ends the link because of a message of more than 1 MiB

local link = { why = "it has not started", failures = 0, ignored = 0, losses = 0 };

local function hello()
	return json.encode {
		version = version; host = module.host; timeout = options.timeout; events = state.queue.restored;
		boot = ("%d-%d"):format(prosody.start_time, pposix.getpid()); -- the same until Prosody is started again
	};
end

local connect; -- refers to itself through what it starts

local function connect_after(seconds)
	link.next_try = now() + seconds;
	link.timer = timer.add_task(seconds, function ()
		link.timer = nil;
		connect();
	end);
end

-- Whether the other side has answered, but has no link.
local function has_none(status)
	return status and status > 0 and status < 500 and status ~= 408 and status ~= 429;
end

local function pause_after(status)
	if has_none(status) then return pause_without_link; end
	link.failures = link.failures + 1;
	return math.min(longest_pause, 0.125 * 2 ^ link.failures);
end

local handlers = {};

function handlers.on_up(connection)
	link.why, link.up_since = nil, now();
	state.primary_down_until = 0;
	connection.was_up = true;
	metrics.link_is_up(1);
	module:log("info", "The link to %s is up", options.url);
	on_up();
end

function handlers.on_down(connection, reason, status)
	if link.current ~= connection then return; end
	link.current, link.why = nil, reason;
	if connection.has_answered then link.failures = 0; end
	if connection.was_up then
		link.losses = link.losses + 1;
		metrics.link_is_up(0);
		metrics.link_was_lost(1);
		module:log("warn", "The link to %s was lost (%s). Until it is up again, HTTP is used", options.url, reason);
		status = nil;
	else
		local level = (status == 401 or status == 403) and "warn" or "debug";
		module:log(level, "There is no link to %s: %s", options.url, reason);
	end
	if not link.is_retired then connect_after(pause_after(status) * (0.75 + math.random() / 2)); end
end

-- The sidecar is about to end. What is under way it still answers; another one may be there already.
function handlers.on_bye(connection)
	if link.current ~= connection then return; end
	link.current, link.why = nil, "the sidecar is stopping";
	metrics.link_is_up(0);
	connection:drain();
	if not link.is_retired then connect_after(math.random() / 10); end
end

-- The outcome may come when this connection is gone. The sidecar sends the order again then, and gets the same outcome.
function handlers.on_order(connection, id, text)
	carry_out(id, answers.read_object(text) or {}, function (outcome)
		local carrier = link.current and link.current:is_up() and link.current or connection;
		local said = json.encode(outcome);
		if #said > longest_outcome then said = json.encode { status = "failed"; error = "the outcome is too long" }; end
		carrier:tell("done "..id.."\n"..said);
	end);
end

function handlers.on_ignored(what, is_quiet)
	link.ignored = link.ignored + 1;
	metrics.link_ignored(1);
	if not is_quiet then module:log("debug", "Ignored on the link: %s", what); end
end

function connect()
	link.next_try = nil;
	link.current = connections.new(handlers);
	link.current:begin(options.url.."/link", hello());
end

-- Prosody sets its start_time only when the modules are loaded.
local function start()
	if not options.are_wrong then connect_after(0); end
end

local function is_up()
	return link.current ~= nil and link.current:is_up();
end

-- `kind` is "ask" or "event". Returns false if it has to go another way; else the exchange hears of it, see
-- connection.lib.lua.
local function send(kind, id, exchange)
	return link.current ~= nil and link.current:send(kind, id, exchange);
end

local function stop_trying()
	link.is_retired = true;
	if link.timer then timer.stop(link.timer); end
	link.timer, link.next_try = nil, nil;
end

-- Another gate goes on. What is under way here is still answered here, and only here.
local function retire()
	stop_trying();
	local current = link.current;
	link.current, link.why = nil, "the module was reloaded";
	if current then current:drain(); end
end

local function stop()
	stop_trying();
	if link.current then link.current:close(); end
end

local function describe()
	local more = (", lost %d times, %d messages ignored"):format(link.losses, link.ignored);
	if is_up() then
		return ("up for %.0f s, %d under way"):format(now() - link.up_since, link.current.count)..more;
	elseif link.current then
		return "being set up"..more;
	end
	local next_try = link.next_try and (", next try in %.0f s"):format(link.next_try - now()) or "";
	return ("none (%s)%s; HTTP is used"):format(link.why, next_try)..more;
end

local function new(need)
	options, state, metrics, connections = need.options, need.state, need.metrics, need.connections;
	carry_out, on_up, answers, version = need.carry_out, need.on_up, need.answers, need.version;
	return { start = start; is_up = is_up; send = send; retire = retire; stop = stop; describe = describe };
end

return { version = "0.2.0"; new = new };
