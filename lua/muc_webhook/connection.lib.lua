-- One connection of the link: a WebSocket to the sidecar, and what is under way on it.
--
--   connecting ──> up ──> draining ──> over        a failure ends each of them
--
-- A message is a header line, "KIND ID [WORD ...]", and a body that goes byte for byte. An answer has the id of its
-- question and counts only on the connection that carried the question, so it can never be that to another one.
--
-- net.websocket leaves to its user: a time-out for the handshake, and its request; an end of what does not close;
-- errors in onmessage, after which the next message would wait; how much is sent to a peer that does not read; and
-- whether the peer still lives, since it shows no pong.

local http = require "net.http";
local timer = require "util.timer";
local websocket = require "net.websocket";

local options, safely, answers, abandon; -- handed over by start.lib.lua

local protocol = "prosody-sidecar.v1";
local handshake_within = 3;
local longest_body = 64 * 1024; -- the sidecar takes no longer one
local most_bytes, most_under_way = 4 * 1024 * 1024, 1000; -- what the peer has not answered yet
local biggest_message = 3 * 1024 * 1024;
local read_size = 32 * 1024; -- net.websocket copies what it has read for each message in it
local most_ignored, most_logged = 300, 10; -- messages between two beats that answer nothing
local idle_beats, silent_beats = 10, 2;

local connection_mt = {};
connection_mt.__index = connection_mt;

-- The rest is over already; whoever waits hears it at the end, since it may open another connection.
function connection_mt:finish(reason, code)
	if self.state == "over" then return; end
	self.state = "over";
	for _, name in ipairs { "beat_timer"; "handshake_timer" } do
		if self[name] then timer.stop(self[name]); end
		self[name] = nil;
	end
	local lost = self.under_way;
	self.under_way, self.count, self.bytes = {}, 0, 0;
	safely("The end of a link", self.on_down, self, reason, code);
	for _, exchange in pairs(lost) do safely("Asking again", exchange.lost, exchange, reason); end
end

-- Without the closing handshake, for which the peer would have to live.
function connection_mt:fail(reason, code)
	if self.state == "over" then return; end
	local conn = self.socket and self.socket.conn;
	self:finish(reason, code);
	if conn then
		self.socket.readbuffer = ""; -- else net.websocket would go on with what it has read
		conn:setlistener({});
		(conn.destroy or conn.close)(conn);
	elseif self.request then
		abandon(self.request);
	end
end

function connection_mt:close()
	local socket = self.state ~= "over" and self.socket;
	if not socket or not socket.conn then return self:fail("closed"); end
	self:finish("closed");
	socket:close(1000);
end

-- What is under way may end; nothing else begins.
function connection_mt:drain()
	if self.state == "over" then return; end
	if self.count == 0 then return self:close(); end
	self.state = "draining";
end

function connection_mt:is_up()
	return self.state == "up" and self.socket.readyState == 1;
end

-- A header line and what is behind it. Returns whether the message is on its way.
function connection_mt:tell(message)
	if self.state ~= "up" and self.state ~= "draining" then return false; end
	local ok, sent = pcall(self.socket.send, self.socket, message);
	return ok and sent ~= nil;
end

-- Names a config that the asker has had before. Its answer is shorter then, if it still is the config.
function connection_mt:words_of(exchange)
	local known_config = exchange.asker and exchange.asker.known_config;
	if not known_config or not self.knows_digests then return exchange.endpoint; end
	return exchange.endpoint.." "..known_config.digest;
end

-- Sends what is to be answered: exchange:answered(status, body, is_old, config_status, config) is called, see
-- webhook.lib.lua, or exchange:lost(why).
-- Returns false if nothing was sent.
function connection_mt:send(kind, id, exchange)
	local size = #exchange.body;
	if not self:is_up() or size > longest_body then return false; end
	if self.count >= most_under_way or self.bytes + size > most_bytes or self.under_way[id] then return false; end
	self.under_way[id], self.count, self.bytes = exchange, self.count + 1, self.bytes + size;
	exchange.connection, exchange.link_id = self, id;
	if self:tell(kind.." "..id.." "..self:words_of(exchange).."\n"..exchange.body) then return true; end
	return not self:forget(exchange); -- if it is under way no more, it was lost meanwhile, and sent in another way
end

-- Returns whether it was under way here.
function connection_mt:forget(exchange)
	local id = exchange.link_id;
	if self.under_way[id] ~= exchange then return false; end
	self.under_way[id], self.count, self.bytes = nil, self.count - 1, self.bytes - #exchange.body;
	exchange.connection = nil;
	if self.state == "draining" and self.count == 0 then timer.add_task(0, function () self:close(); end); end
	return true;
end

function connection_mt:ignore(what)
	self.ignored = self.ignored + 1;
	self.on_ignored(what, self.ignored > most_logged);
	if self.ignored > most_ignored then self:fail("the sidecar sends what nobody has asked for"); end
end

function connection_mt:take_answer(id, words, message, body_at)
	local exchange = self.under_way[id];
	local numbers, marks = words:gsub(" old$", "");
	local status, config_status, length = numbers:match("^(%d%d%d) (%d%d%d) (%d+)$");
	status = status or numbers:match("^%d%d%d$");
	if not exchange or not status then return self:ignore("an answer to "..id); end
	self:forget(exchange);
	self.has_answered = true;
	status, config_status, length = tonumber(status), tonumber(config_status), tonumber(length);
	if not length then return exchange:answered(status, message:sub(body_at), marks > 0); end
	local config_at = body_at + length;
	exchange:answered(status, message:sub(body_at, config_at - 1), marks > 0, config_status, message:sub(config_at));
end

function connection_mt:take(message)
	local kind, id, words, body_at = message:match("^(%l+) ([%w_-]+) ?([^\n]*)\n?()");
	if self.state == "over" then return; end
	local is_asked_for = self.waits > 0;
	self.is_heard, self.waits = true, 0;
	if kind == "answer" or kind == "taken" then
		self:take_answer(id, words, message, body_at);
	elseif kind == "ping" then
		self:tell("pong "..id.."\n");
	elseif kind == "bye" then
		self.on_bye(self);
	elseif kind == "order" then
		self.on_order(self, id, message:sub(body_at));
	elseif kind == "hello" then
		local hello = answers.read_object(message:sub(body_at));
		self.knows_digests = hello ~= nil and hello.configDigests == true;
	elseif not (kind == "pong" and is_asked_for) then
		self:ignore(kind or "no header");
	end
end

-- Counts beats and not seconds: when Prosody itself has stood still, what came meanwhile is read before the next one.
function connection_mt:beat()
	if self.waits >= silent_beats then return self:fail("the sidecar gives no sign of life"); end
	if self.socket.readyState ~= 1 then return self:fail("the sidecar has closed the link"); end
	if #self.socket.readbuffer > biggest_message then return self:fail("a message of the sidecar is too big"); end
	self.silent = self.is_heard and 0 or self.silent + 1;
	self.is_heard, self.ignored = false, 0;
	if self.waits > 0 then
		self.waits = self.waits + 1;
	elseif self.silent >= (self.count > 0 and 1 or idle_beats) and self:tell("ping 0\n") then
		self.waits = 1;
	end
	self.beat_timer = timer.add_task(self.beat_every, function () self:beat(); end);
end

function connection_mt:open(hello)
	timer.stop(self.handshake_timer);
	self.handshake_timer = nil;
	self.state = "up";
	self.socket.conn:set_mode(read_size);
	self.socket.conn:setoption("tcp-nodelay", true); -- else a question waits up to 40 ms while another one is under way
	self:tell("hello 0\n"..hello);
	self.on_up(self);
	self:beat();
end

-- What net.websocket does with the answer to the handshake, it does only with one that is a yes, and while it is wanted.
function connection_mt:watch_handshake(request)
	local go_on = request.callback;
	self.request = request;
	request.callback = function (content, code, response, ...)
		request.is_over = true;
		if self.state == "over" then return; end
		if code ~= 101 then return self:fail(code == 0 and tostring(content) or "it answers with status "..code, code); end
		if not pcall(go_on, content, code, response, ...) then self:fail("its answer to the handshake is none", code); end
	end;
end

-- Calls on_up or on_down.
function connection_mt:begin(url, hello)
	self.handshake_timer = timer.add_task(handshake_within, function ()
		self.handshake_timer = nil;
		self:fail("no answer to the handshake");
	end);
	local function catch(event) self:watch_handshake(event.request); end
	http.events.add_handler("request", catch);
	local ok, socket = pcall(websocket.connect, (url:gsub("^http", "ws")), {
		protocol = protocol; headers = { ["X-Webhook-Secret"] = options.secret };
	}, {
		onopen = function () self:open(hello); end;
		onmessage = function (_, message) safely("Taking in a message of the link", self.take, self, message); end;
		onclose = function (_, code, reason) self:finish(tostring(reason or code or "it was closed")); end;
		onerror = function (_, reason) self:fail(tostring(reason), 101); end;
	});
	http.events.remove_handler("request", catch);
	if not ok then return self:fail(tostring(socket)); end
	self.socket = socket;
end

-- A connection that is to be begun. `on` has the functions on_up(connection), on_down(connection, reason, HTTP status
-- or nil), once, on_bye(connection), on_order(connection, id, text) and on_ignored(what, whether to keep it out of the log).
local function new_connection(on)
	local self = setmetatable({
		state = "connecting"; under_way = {}; count = 0; bytes = 0; ignored = 0; silent = 0; waits = 0; is_heard = false;
		beat_every = math.max(0.1, math.min(1, options.timeout / 8));
	}, connection_mt);
	for name, f in pairs(on) do self[name] = f; end
	return self;
end

local function new(need)
	options, safely, answers, abandon = need.options, need.safely, need.answers, need.http.abandon;
	return { new = new_connection };
end

return { version = "0.2.0"; new = new };
