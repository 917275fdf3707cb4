-- Plain HTTP over connections that are kept.
--
-- net.http of Prosody 0.12 opens a connection for each request, and that of 13 keeps only one: this costs more than
-- all the rest of a question. So plain HTTP, the way to a sidecar, has connections of its own here. There is one
-- exchange (a request and its answer) at a time on each, and only a whole answer leaves its connection behind for
-- another exchange: what may still come on any other would be taken for the answer to the next user's question.

local base64 = require "util.encodings".base64.encode;
local connect = require "net.connect".connect;
local new_parser = require "net.http.parser".new;
local new_resolver = require "net.resolvers.basic".new;
local now = require "util.time".now;
local parse_url = require "socket.url".parse;

local safely; -- handed over by start.lib.lua

local biggest_answer = 1024 * 1024;
local most_idle, longest_idle = 16, 30;

local pool = {
	idle = {}; -- address -> connections that are free, the latest last
	since = {}; -- the same connections -> when they became free
	is_open = true;
};
local exchanges = {}; -- connection -> the exchange that is on it
local exchange_mt = {};
exchange_mt.__index = exchange_mt;

function pool.keep(address, conn)
	local list = pool.idle[address] or {};
	if not pool.is_open or #list >= most_idle then return conn:close(); end
	pool.idle[address], pool.since[conn] = list, now();
	table.insert(list, conn);
end

function pool.forget(conn)
	if not pool.since[conn] then return; end
	pool.since[conn] = nil;
	for _, list in pairs(pool.idle) do
		for i = #list, 1, -1 do
			if list[i] == conn then table.remove(list, i); end
		end
	end
end

-- A connection that was free for long may be dead, and nothing says so: a firewall has forgotten it.
function pool.take(address)
	local list = pool.idle[address];
	local conn = list and table.remove(list);
	if not conn then return nil; end
	local since = pool.since[conn];
	pool.since[conn] = nil;
	if now() - since <= longest_idle then return conn; end
	conn:close();
	return pool.take(address);
end

function pool.close()
	pool.is_open = false;
	local conns = {};
	for conn in pairs(pool.since) do table.insert(conns, conn); end
	for _, conn in ipairs(conns) do conn:close(); end
end

local listener = {};

function exchange_mt:connect()
	local host, port = self.target.host, self.target.port;
	connect(new_resolver(host, port, "tcp", { servername = host }), listener, {}, self);
end

function exchange_mt:send_on(conn)
	self.conn, exchanges[conn] = conn, self;
	conn:write(self.text);
end

function exchange_mt:leave()
	local conn = self.conn;
	if conn then self.conn, exchanges[conn] = nil, nil; end
	return conn;
end

function exchange_mt:finish(code, ...)
	if self.over then return; end
	self.over = true;
	safely("Taking in an answer", self.on_end, code, ...);
end

function exchange_mt:fail(reason)
	local conn = self:leave();
	if conn then conn:close(); end
	self:finish(0, reason);
end

-- The other side gave the connection up before it was used again.
function exchange_mt:try_again()
	local conn = self:leave();
	if conn then conn:close(); end
	self.is_on_old = false;
	self:connect();
end

-- For bodies of no known length, which Prosody's parser cuts short or lets grow.
local function new_sink(exchange, packet)
	local size = 0;
	packet.parts = {};
	return {
		write = function (_, part)
			size = size + #part;
			if size > biggest_answer then
				exchange.failure = "answer too big";
				return nil;
			end
			table.insert(packet.parts, part);
			return true;
		end;
	};
end

-- The first answer counts. What comes behind it is noted as `has_rest`, also half a head or what is no HTTP at all.
function exchange_mt:new_parser()
	local function on_packet(packet)
		if self.packet then
			self.has_rest = true;
		elseif not packet.partial then
			if packet.code >= 200 then self.packet = packet; end -- else it announces an answer
		elseif packet.chunked or not packet.body_length then
			packet.body_sink = new_sink(self, packet);
		end
	end
	local function on_error(reason)
		if self.packet then self.has_rest = true; else self.failure = reason; end
	end
	local function options() -- asked for with each head
		if self.packet then self.has_rest = true; end
		return { body_size_limit = biggest_answer };
	end
	return new_parser(on_packet, on_error, "client", options);
end

local function is_reusable(packet)
	local wish = (packet.headers.connection or ""):lower();
	if wish:find("close", 1, true) or not (packet.chunked or packet.body_length) then return false; end
	return packet.httpversion == "1.1" or wish:find("keep-alive", 1, true) ~= nil;
end

-- The usual answer comes in one piece that says how long it is. To Prosody's parser it costs five times its size in
-- memory, and so in garbage collection, which is what a join costs most.
local function read_whole_answer(data)
	local version, code, fields, body_at = data:match("^HTTP/(1%.[01]) ([2-5]%d%d) [^\r\n]*(\r\n.-\r\n)\r\n()");
	if not version then return nil; end
	local headers = {};
	for name, value in fields:gmatch("\r\n([^%s:]+):[ \t]*([^\r\n]*)") do
		name = name:lower();
		if headers[name] then return nil; end
		headers[name] = value;
	end
	local length = (headers["content-length"] or ""):match("^%d+$");
	if headers["transfer-encoding"] or code == "204" or code == "304" then return nil; end
	if not length or #data > biggest_answer or body_at - 1 + tonumber(length) ~= #data then return nil; end
	return {
		code = tonumber(code); httpversion = version; headers = headers;
		body = data:sub(body_at); body_length = tonumber(length);
	};
end

function exchange_mt:parse(data)
	if not self.parser then
		self.packet = data and read_whole_answer(data);
		if self.packet then return; end
		self.parser = self:new_parser();
	end
	self.parser:feed(data);
	if self.packet then self.parser:feed(nil); end -- it is an error if anything is left
end

-- `data` is nil when the connection has ended.
function exchange_mt:read(data)
	local ok, err = pcall(self.parse, self, data);
	if not ok then self.failure = err; end
	local packet = self.packet;
	if packet and packet.chunked and not data then self.failure = "unexpected-eof"; end -- the parser takes any end
	if self.failure then
		self:fail(self.failure == "content-length-limit-exceeded" and "answer too big" or self.failure);
	elseif packet then
		local conn = self:leave();
		if conn and is_reusable(packet) and not self.has_rest then -- the rest would answer the next user's question
			pool.keep(self.target.address, conn);
		elseif conn then
			conn:close();
		end
		local answer = packet.parts and table.concat(packet.parts) or packet.body or "";
		self:finish(packet.code, answer, packet.headers);
	end
end

function listener.onattach(conn, exchange)
	exchange.conn, exchanges[conn] = conn, exchange;
end

function listener.onconnect(conn)
	local exchange = exchanges[conn];
	if exchange and not exchange.over then
		exchange:send_on(conn);
	else
		conn:close(); -- it took too long
	end
end

function listener.ondrain(conn)
	local exchange = exchanges[conn];
	if exchange then exchange.is_sent = true; end
end

function listener.onincoming(conn, data)
	local exchange = exchanges[conn];
	if not exchange then
		conn:close(); -- nobody asked
	elseif not exchange.is_sent then -- it cannot be the answer
		if exchange.is_on_old then exchange:try_again(); else exchange:fail("an answer before the question"); end
	else
		exchange.has_answer = true;
		exchange:read(data);
	end
end

function listener.ondisconnect(conn, err)
	pool.forget(conn);
	local exchange = exchanges[conn];
	if not exchange then return; end
	exchange:leave();
	if exchange.is_on_old and not exchange.has_answer then
		exchange:try_again();
	elseif exchange.has_answer and (err == nil or err == "closed") then
		exchange:read(nil);
		exchange:finish(0, "the connection was closed in the middle of the answer");
	else
		exchange:finish(0, err or "the connection was closed without an answer");
	end
end

function listener.onfail(exchange, reason)
	exchange:finish(0, reason or "connection failed");
end

local targets = {}; -- URL -> where that is

local function target_of(url)
	if targets[url] then return targets[url]; end
	local parsed = parse_url(url);
	local authority = parsed.authority:gsub("^.*@", "");
	local head = ("POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Prosody XMPP Server\r\n"):format(
		url:match("^%w+://[^/]*(/.*)$"), authority);
	if parsed.userinfo then head = head.."Authorization: Basic "..base64(parsed.userinfo).."\r\n"; end
	targets[url] = { host = parsed.host, port = tonumber(parsed.port) or 80, address = authority, head = head };
	return targets[url];
end

-- Calls on_end(code, body, headers) once, with code 0 and the reason if there is no answer; not at all if the function
-- that it returns, which hangs up, is called first.
local function send(url, body, headers, on_end)
	local target = target_of(url);
	local lines = { target.head };
	for name, value in pairs(headers) do table.insert(lines, name..": "..value.."\r\n"); end
	table.insert(lines, ("Content-Length: %d\r\n\r\n"):format(#body));
	table.insert(lines, body);
	local exchange = setmetatable({ target = target, text = table.concat(lines), on_end = on_end }, exchange_mt);
	local conn = pool.take(target.address);
	exchange.is_on_old = conn ~= nil;
	if conn then
		exchange:send_on(conn);
	else
		exchange:connect();
	end
	return function ()
		exchange.over = true;
		exchange:fail();
	end
end

local function new(need)
	safely = need.safely;
	return { send = send; pool = pool; biggest_answer = biggest_answer };
end

return { version = "0.2.0"; new = new };
