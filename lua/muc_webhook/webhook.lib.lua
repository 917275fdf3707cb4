-- Sends questions and events to muc_webhook_url: over the link while there is one, else over HTTP.
--
-- An exchange is one of them, from its first try to its outcome or the end of its time. A question whose way breaks is
-- sent in another way: over HTTP, or while muc_webhook_url cannot be reached, to muc_webhook_fallback_url. An event
-- goes back to its queue.

local now = require "util.time".now;

local options, state, metrics, safely, http, link; -- handed over by start.lib.lua
local deadlines; -- of the exchanges, made by `new`

-- A sidecar answers a join's two questions in one, over the link; over HTTP they are two.
local http_endpoints = { ["join"] = "validate-access"; ["join config"] = "validate-access" };

local exchange_mt = {};
exchange_mt.__index = exchange_mt;

-- The first outcome counts.
function exchange_mt:finish(...)
	if self.is_over then return; end
	self.is_over = true;
	state.exchanges[self] = nil;
	deadlines:forget_ended();
	if self.measured then self.measured(); end
	safely("Taking in an answer", self.on_answer, self.asker, ...);
end

-- A late answer finds nobody.
function exchange_mt:give_up(reason)
	if self.is_over then return; end
	if self.connection then self.connection:forget(self); end
	if self.hang_up then safely("Hanging up", self.hang_up); end
	self:finish(0, reason);
end

function exchange_mt:answered(...)
	self.connection = nil;
	self:finish(...);
end

function exchange_mt:lost(reason)
	self.connection = nil;
	if self.is_over then return; end
	if self.id then return self:finish(0, reason); end
	self:send();
end

-- Whether a sidecar says that the meeting service has not given this answer now.
local function is_old(headers)
	local status = headers["cache-status"] or "";
	return status:find("^prosody%-sidecar;.*detail=") ~= nil;
end

function exchange_mt:post(url, secret, on_end)
	local headers = http.headers_for(secret, self.id and { ["Idempotency-Key"] = self.id });
	local endpoint = http_endpoints[self.endpoint] or self.endpoint;
	self.hang_up = http.post(url.."/"..endpoint, self.body, headers, function (code, answer, answer_headers)
		self.hang_up = nil;
		on_end(code, answer, is_old(answer_headers));
	end);
end

local function pass_by(reason)
	state.primary_down_until = now() + 5;
	module:log("warn", "%s cannot be reached (%s), asking the backend itself for a while", options.url, reason);
end

function exchange_mt:ask_fallback()
	self.is_passed_by = true;
	self:post(options.fallback_url, options.fallback_secret, function (...) self:finish(...); end);
end

-- Once more, if the connection has ended without an answer: Prosody ends a new one ("connection timeout") if what it
-- still has to read was for another one, which had the same number and was closed just before.
function exchange_mt:ask_over_http(is_repeated)
	self:post(options.url, options.secret, function (code, answer, ...)
		if code == 0 and not is_repeated and answer ~= "connection refused" then return self:ask_over_http(true); end
		if code ~= 0 or not options.fallback_url then return self:finish(code, answer, ...); end
		pass_by(answer);
		self:ask_fallback();
	end);
end

function exchange_mt:send_event()
	if #self.id <= 64 and self.id:find("^[%w_-]+$") and link.send("event", self.id, self) then return; end
	self:post(options.url, options.secret, function (...) self:finish(...); end);
end

function exchange_mt:send()
	if self.id then return self:send_event(); end
	if options.fallback_url and state.primary_down_until > now() then return self:ask_fallback(); end
	state.last_question = state.last_question + 1;
	if not link.send("ask", ("%d"):format(state.last_question), self) then self:ask_over_http(); end
end

local function on_timeout(exchange)
	if options.fallback_url and not exchange.id and not exchange.is_passed_by then pass_by("timeout"); end
	exchange:give_up("timeout");
end

local function begin(exchange)
	setmetatable(exchange, exchange_mt);
	state.exchanges[exchange] = true;
	deadlines:add(exchange);
	exchange:send();
end

-- Calls on_answer(asker, status, body, is_old) once, never later than after muc_webhook_timeout; status 0 says that there
-- was no answer, and body why. `is_old`: it is from the sidecar's memory or policy, since the meeting service could not be
-- asked. With a config in the answer to "join config", its status and body come after that.
local function ask(endpoint, body, on_answer, asker)
	begin {
		endpoint = endpoint; body = body; on_answer = on_answer; asker = asker; measured = metrics.question_begins();
	};
end

-- The same for an event; `id` is the same at each try.
local function deliver(endpoint, id, body, on_answer)
	begin { endpoint = endpoint; id = id; body = body; on_answer = on_answer };
end

-- Ends them early: whoever waits for one hears now that there is no answer, instead of never.
local function end_all(is_meant)
	local ended = {};
	for exchange in pairs(state.exchanges) do
		if is_meant(exchange) then table.insert(ended, exchange); end
	end
	for _, exchange in ipairs(ended) do exchange:give_up("module unloaded"); end
end

local function end_questions()
	end_all(function (exchange) return not exchange.id; end);
end

local function end_events()
	end_all(function (exchange) return exchange.id ~= nil; end);
end

local function new(need)
	options, state, metrics, safely = need.options, need.state, need.metrics, need.safely;
	http, link = need.http, need.link;
	deadlines = need.deadlines.new(options.timeout, on_timeout);
	return {
		ask = ask; deliver = deliver; can_join = link.is_up; end_questions = end_questions; end_events = end_events;
	};
end

return { version = "0.2.0"; new = new };
