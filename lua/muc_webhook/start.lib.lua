-- Asks a meeting service, over webhooks, who may join which room, and sets rooms up as it says.
--
--   presence/full ──> gate ──> POST validate-access ──> POST room-created ──> mod_muc makes the join
--                      │              │ no                    │ once per room life
--                      │              └──> error to the user  └──> applied before anybody is in
--                      └── the user's own session waits here; nobody else does
--
-- The gate sits in front of mod_muc (which handles presence/full at -2). A user who is turned away has then never
-- been an occupant, and a room that is not to be was never made. Inside mod_muc it would be too late: its hooks
-- cannot wait without making two objects of one room, leaving empty rooms behind or joining rooms that are gone.

local array = require "util.array";
local async = require "util.async";
local base64 = require "util.encodings".base64.encode;
local connect = require "net.connect".connect;
local http = require "net.http";
local jid = require "util.jid";
local json = require "util.json";
local new_parser = require "net.http.parser".new;
local new_resolver = require "net.resolvers.basic".new;
local parse_url = require "socket.url".parse;
local st = require "util.stanza";
local timer = require "util.timer";
local now = require "util.time".now;
local new_uuid = require "util.uuid".generate;
local valid_utf8 = require "util.encodings".utf8.valid;

local xmlns_muc = "http://jabber.org/protocol/muc";
local xmlns_nick = "http://jabber.org/protocol/nick";
local xmlns_jitmeet = "http://jitsi.org/jitmeet";

local function start(saved)

local muc_host = prosody.hosts[module.host];
local muc = muc_host.modules.muc;


-- ---------------------------------------------------------------------------------------------------------------
-- Options
-- ---------------------------------------------------------------------------------------------------------------
-- A wrong option must not open the gate: Prosody would go on without a module that fails to load. So the module
-- loads all the same, says what is wrong, and turns every join away until that is mended.

local known_options, problems = {}, {};

local function option(name, default, check, expected)
	known_options[name] = true;
	local value = module:get_option(name);
	if value == nil then return default; end
	local checked = check(value);
	if checked == nil then
		local shown = name:find("secret", 1, true) and "what it is" or tostring(value);
		table.insert(problems, ("%s has to be %s, not %s"):format(name, expected, shown));
		return default;
	end
	return checked;
end

local function url_option(name)
	local url = option(name, nil, function (value)
		return type(value) == "string" and value:match("^https?://[^/%s]+[^%s]*$") or nil;
	end, "a URL like http://127.0.0.1:8788/webhooks/jitsi");
	return url and url:gsub("/+$", "") or nil;
end

local function text_option(name, default)
	return option(name, default, function (value)
		return type(value) == "string" and value ~= "" and not value:find("[\r\n]") and value or nil;
	end, "a line of text");
end

local function flag_option(name, default)
	return option(name, default, function (value)
		if type(value) == "boolean" then return value; end
		return nil;
	end, "true or false");
end

local function number_option(name, default, least, most)
	return option(name, default, function (value)
		value = tonumber(value);
		return value and value >= least and value <= most and value or nil;
	end, ("a number from %g to %g"):format(least, most));
end

-- Reads a list as the set of its members; `allowed` names the only members there may be.
local function set_option(name, allowed)
	return option(name, {}, function (value)
		if type(value) == "string" then value = { value }; end
		if type(value) ~= "table" then return nil; end
		local set = {};
		for _, member in ipairs(value._items or value) do
			if type(member) ~= "string" or (allowed and not allowed[member]) then return nil; end
			set[member] = true;
		end
		return set;
	end, "a list of names"..(allowed and " (of the events there are)" or ""));
end

local event_names = {
	["user-joined"] = true; ["user-left"] = true; ["room-destroyed"] = true; ["moderator-changed"] = true;
};

local webhook_url = url_option("muc_webhook_url");
local webhook_secret = text_option("muc_webhook_secret");
local webhook_timeout = number_option("muc_webhook_timeout", 5, 0.1, 300);
local fallback_url = url_option("muc_webhook_fallback_url");
local fallback_secret = text_option("muc_webhook_fallback_secret", webhook_secret);
local fail_open = flag_option("muc_webhook_fail_open", false);
local exempt_jids = set_option("muc_webhook_exempt");
local send_token = flag_option("muc_webhook_send_token", true);
local send_meeting_id = flag_option("muc_webhook_send_meeting_id", false);
local subject_from_title = flag_option("muc_webhook_subject", false);
local more_settings = set_option("muc_webhook_frontend_settings");
local wanted_events = set_option("muc_webhook_events", event_names);
local queue_size = number_option("muc_webhook_queue_size", 1000, 1, 1000000);
local enforce_duration = flag_option("muc_webhook_enforce_duration", true);
local warning_minutes = number_option("muc_webhook_duration_warning", 5, 0, 1440);

if not webhook_url and #problems == 0 then
	table.insert(problems, "muc_webhook_url is not set");
end

do -- A misspelt option would otherwise be a setting that silently does nothing.
	local all_options = require "core.configmanager".getconfig();
	for _, host in ipairs { "*", module.host } do
		for name in pairs(all_options[host] or {}) do
			if type(name) == "string" and name:find("^muc_webhook_") and not known_options[name] then
				module:log("warn", "There is no option %s; see the module's page for those there are", name);
			end
		end
	end
end

for _, problem in ipairs(problems) do
	module:log("error", "%s. Every join is refused until this is mended.", problem);
end
local misconfigured = #problems > 0;

-- ---------------------------------------------------------------------------------------------------------------
-- State
-- ---------------------------------------------------------------------------------------------------------------
-- Handed from one instance to the next when the module is reloaded: a join that waits across the reload holds on to
-- the old instance's functions, and both have to see the same rooms.

local state = saved or {};
local initial = {
	records = {}; -- room JID -> record, see "Room config"
	lives = {}; -- room JID -> what happened in it, see "Events"
	grants = setmetatable({}, { __mode = "k" }); -- stanzas that were let in and come by once more
	detached = {}; -- user and room JID -> ticket of a join that waits outside its session's thread
	questions = {}; -- open question -> function that ends it
	deliveries = {}; -- the same for events on their way
	queue = { lanes = {}; ready = {}; size = 0; in_flight = 0; dropped = 0; paused_until = 0; failures = 0 };
	primary_down_until = 0;
	is_sidecar = false; -- whether the last answer was a sidecar's
	no_joins_until = 0; -- it is an older one, which has no such endpoint
	swept_at = 0;
	pending_joins = 0;
	counts = { allowed = 0; denied = 0; refused = 0; unavailable = 0; exempt = 0 };
};
for key, value in pairs(initial) do
	if state[key] == nil then state[key] = value; end
end
state.is_sidecar = false; -- the URL may be another one now
state.stopped = nil;

local measure = {
	allowed = module:measure("joins_allowed", "counter");
	denied = module:measure("joins_denied", "counter");
	refused = module:measure("joins_refused_by_config", "counter");
	unavailable = module:measure("joins_without_decision", "counter");
	exempt = module:measure("joins_exempt", "counter");
	events_dropped = module:measure("events_dropped", "counter");
	pending = module:measure("joins_pending", "amount");
	queued = module:measure("events_queued", "amount");
	request = module:measure("request", "times");
};

local function count(what)
	state.counts[what] = state.counts[what] + 1;
	measure[what](1);
end

-- ---------------------------------------------------------------------------------------------------------------
-- Connections
-- ---------------------------------------------------------------------------------------------------------------
-- net.http of Prosody 0.12 opens a connection for each request, and that of 13 keeps only one: this costs more than
-- all the rest of a question. So plain HTTP, the way to a sidecar, has connections of its own here. There is one
-- exchange (a request and its answer) at a time on each, and only a whole answer leaves its connection behind for
-- another exchange: what may still come on any other would be taken for the answer to the next user's question.

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

local function safely(what, f, ...)
	local ok, err = xpcall(f, debug.traceback, ...);
	if not ok then module:log("error", "%s failed: %s", what, err); end
	return ok;
end

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

-- One that was free for long may be dead without a word, behind a firewall that has forgotten it.
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

function exchange_mt:new_parser()
	local function on_packet(packet)
		if not packet.partial then
			if packet.code >= 200 then self.packet = packet; end -- else it announces an answer
		elseif packet.chunked or not packet.body_length then
			packet.body_sink = new_sink(self, packet);
		end
	end
	local function on_error(reason) self.failure = reason; end
	return new_parser(on_packet, on_error, "client", function () return { body_size_limit = biggest_answer }; end);
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
		if conn and is_reusable(packet) then
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
	elseif exchange.is_on_old and not exchange.is_sent then
		exchange:try_again(); -- it cannot be the answer
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
local function send_on_own_connection(url, body, headers, on_end)
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

-- The same for https, which is left to net.http. Prosody 13 can keep a connection for the next request there, 0.12
-- takes no notice of the wish. An error thrown in a callback leaks the socket.
local client = http.default.new({ connection_pooling = true });

local function send_with_net_http(url, body, headers, on_end)
	local request, is_over, is_given_up, on_old_connection;

	-- A request whose connection is still being made cannot be ended: it has to be waited for, or it would then sit
	-- there, sent and forgotten, for as long as the other side likes.
	local function hang_up()
		if is_over or not request then return nil; end
		if not request.conn then return 1; end
		-- The second argument keeps Prosody 13 from handing the busy connection, and with it this request's
		-- late answer, to the next user.
		pcall(http.destroy_request, request, true);
		return nil;
	end

	local function send(is_second_try)
		is_over = false;
		request = client:request(url, { method = "POST", body = body, headers = headers }, function (answer, code, response)
			is_over = true;
			if is_given_up then return; end
			if code == 0 and on_old_connection and not is_second_try then
				send(true); -- the other side had closed the connection just as it was used again
			elseif code == 0 or type(answer) ~= "string" then
				on_end(0, answer or "connection failed");
			elseif #answer > biggest_answer then
				on_end(0, "answer too big");
			else
				on_end(code, answer, response.headers);
			end
		end);
		on_old_connection = request and request.conn ~= nil; -- a new one takes a moment to be there
	end

	send(false);
	return function ()
		is_given_up = true;
		if hang_up() then timer.add_task(1, hang_up); end
	end
end

-- ---------------------------------------------------------------------------------------------------------------
-- Asking over HTTP
-- ---------------------------------------------------------------------------------------------------------------

local function headers_for(secret, more)
	local headers = { ["Content-Type"] = "application/json", ["Accept"] = "application/json" };
	if secret then headers["X-Webhook-Secret"] = secret; end
	for name, value in pairs(more or {}) do headers[name] = value; end
	return headers;
end

-- Calls on_answer(code, body, headers) once, never later than after `timeout` seconds; code 0 says that there was no
-- answer, and body why. Until then `under_way` holds a function that ends the request early. The timer is one of
-- util.timer, since those made with module:add_timer die with a reload and the join would hang.
local function post_once(under_way, url, body, headers, timeout, on_answer)
	local hang_up, timeout_task, finished;

	local function finish(code, answer, answer_headers)
		if finished then return; end
		finished = true;
		under_way[on_answer] = nil;
		if timeout_task then timer.stop(timeout_task); end
		safely("Taking in an answer", on_answer, code, answer, answer_headers);
	end

	local function give_up(reason)
		if finished then return; end
		if hang_up then safely("Hanging up", hang_up); end
		finish(0, reason);
	end

	under_way[on_answer] = give_up;
	timeout_task = timer.add_task(timeout, function ()
		timeout_task = nil;
		give_up("timeout");
	end);
	local send = url:find("^https:") and send_with_net_http or send_on_own_connection;
	local ok, result = pcall(send, url, body, headers, finish);
	if not ok then return give_up(tostring(result)); end
	hang_up = result;
end

-- The sidecar answers a join's two questions in one; a meeting service knows only the first.
local direct_endpoints = { ["join"] = "validate-access"; ["join?config=1"] = "validate-access" };

local function names_a_sidecar(headers)
	local caches = headers and headers["cache-status"] or "";
	return (","..caches..","):find(",%s*prosody%-sidecar%s*[;,]") ~= nil;
end

-- While the sidecar cannot be reached, the backend itself is asked, if its address is known. on_answer gets headers
-- with the answers of muc_webhook_url only.
local function post(endpoint, body, on_answer)
	local deadline = now() + webhook_timeout;
	local measured = measure.request();

	local function answered(code, answer, headers)
		if measured then measured(); end
		on_answer(code, answer, headers);
	end

	local function ask_fallback()
		local left = math.max(deadline - now(), 0.1);
		local url = fallback_url.."/"..(direct_endpoints[endpoint] or endpoint);
		post_once(state.questions, url, body, headers_for(fallback_secret), left, function (code, answer)
			answered(code, answer);
		end);
	end

	if fallback_url and state.primary_down_until > now() then return ask_fallback(); end
	local url, headers = webhook_url.."/"..endpoint, headers_for(webhook_secret);
	post_once(state.questions, url, body, headers, webhook_timeout, function (code, answer, answer_headers)
		if code ~= 0 then state.is_sidecar = names_a_sidecar(answer_headers); end
		if code == 0 and fallback_url and answer ~= "module unloaded" then
			state.primary_down_until = now() + 5;
			module:log("warn", "%s cannot be reached (%s), asking the backend itself for a while", webhook_url, answer);
			if now() < deadline - 0.1 then return ask_fallback(); end
		end
		answered(code, answer, answer_headers);
	end);
end

-- A JSON object, or nil for anything else. JSON's null comes as a table that is truthy.
local function read_object(text)
	local ok, value = pcall(json.decode, text or "");
	if ok and type(value) == "table" and value ~= json.null and text:find("^%s*{") then
		return value;
	end
	return nil;
end

-- Text of strangers that goes into a stanza.
local function presentable(text, default)
	if type(text) ~= "string" then return default; end
	text = text:gsub("%c+", " "):match("^%s*(.-)%s*$");
	if text == "" or not valid_utf8(text) then return default; end
	if #text > 500 then
		text = text:sub(1, 500);
		while not valid_utf8(text) do text = text:sub(1, -2); end
	end
	-- Jitsi's frontend takes this text as the order to try again at once.
	if text:find("Room creation is restricted", 1, true) then return default; end
	return text;
end

-- ---------------------------------------------------------------------------------------------------------------
-- What the answers mean
-- ---------------------------------------------------------------------------------------------------------------

-- "allow", "deny" with a reason, or "unavailable" with the cause.
local function read_decision(code, text)
	if code == 0 then return "unavailable", text; end
	local answer = read_object(text);
	if answer and code >= 200 and code < 300 and answer.allowed == true then
		return "allow";
	elseif answer and answer.allowed == false and (code >= 200 and code < 300 or code >= 400 and code < 500) then
		return "deny", presentable(answer.reason, "You are not allowed to join this meeting");
	end
	return "unavailable", "no decision in an answer with status "..code;
end

-- ---------------------------------------------------------------------------------------------------------------
-- Settings of a room
-- ---------------------------------------------------------------------------------------------------------------

local function is_boolean(value) return type(value) == "boolean"; end
local function is_text(value) return type(value) == "string" and valid_utf8(value) ~= false; end
local function is_count(value) return type(value) == "number" and value >= 0 and value % 1 == 0 and value < 2^31; end
local function is_limit(value) return is_count(value) and value > 0; end
local function is_duration(value) return type(value) == "number" and value > 0 and value < 2^31; end
local function is_whois(value) return value == "anyone" or value == "moderators"; end
local function is_id(value) return is_text(value) or type(value) == "number"; end
local function is_scalar_or_object(value) return value ~= json.null and type(value) ~= "function"; end
local function is_list_of_texts(value)
	if type(value) ~= "table" or value == json.null then return false; end
	for key, member in pairs(value) do
		if type(key) ~= "number" or not is_text(member) then return false; end
	end
	return true;
end

-- For the room in Prosody.
local room_settings = {
	moderators = is_list_of_texts; maxParticipants = is_limit; password = is_text; membersOnly = is_boolean;
	moderated = is_boolean; persistent = is_boolean; hidden = is_boolean; publicRoom = is_boolean; whois = is_whois;
	allowInvites = is_boolean; changeSubject = is_boolean; historyLength = is_count; lobbyEnabled = is_boolean;
	meetingTitle = is_text; meetingDescription = is_text; meetingId = is_id; isPublic = is_boolean;
	maxDurationMinutes = is_duration;
};

-- For the frontend, which gets these and no others.
local frontend_settings = {
	meetingTitle = is_text; meetingDescription = is_text; lobbyEnabled = is_boolean;
	audioQuality = is_scalar_or_object; toolbarButtons = is_list_of_texts;
};
for name in ([[
	chatEnabled whiteboardEnabled screenShareEnabled recordingEnabled muteOnJoin videoOffOnJoin autoRecord
	reactionsEnabled raiseHandEnabled privateMessagesEnabled participantNameEditingEnabled followMeEnabled
	tileViewEnabled filmstripEnabled liveStreamingEnabled virtualBackgroundsEnabled noiseSuppressionEnabled
	e2eeEnabled hd1080pEnabled pollsEnabled breakoutRoomsEnabled speakerStatsEnabled kickParticipantsEnabled
	muteAllEnabled avModerationEnabled securityEnabled closedCaptionsEnabled sharedDocumentEnabled calendarEnabled
]]):gmatch("%S+") do
	frontend_settings[name] = is_boolean;
end
for name in pairs(more_settings) do
	if name == "password" or name == "moderators" then
		module:log("warn", "%s is never sent to the frontend", name);
	elseif not frontend_settings[name] then
		frontend_settings[name] = is_scalar_or_object;
	end
end

-- Other plugins read settings of a room under names like chat_enabled.
local data_names = {};
for name in pairs(frontend_settings) do
	if not more_settings[name] then
		data_names[name] = name:gsub("%u", function (letter) return "_"..letter:lower(); end);
	end
end

local function without_nulls(value)
	if type(value) ~= "table" then return value; end
	local copy = setmetatable({}, getmetatable(value));
	for key, member in pairs(value) do
		if member ~= json.null and type(key) ~= "number" then copy[key] = without_nulls(member); end
	end
	for _, member in ipairs(value) do
		if member ~= json.null then table.insert(copy, without_nulls(member)); end
	end
	return copy;
end

-- What is usable of a config. Wrong types are dropped, not guessed; nulls are as good as absent.
local function add_setting(config, name, value)
	if value == json.null then return; end
	local for_room, for_frontend = room_settings[name], frontend_settings[name];
	if for_room and not for_room(value) or for_frontend and not for_frontend(value) then
		table.insert(config.dropped, name);
		return;
	end
	value = without_nulls(value);
	if for_room then config.settings[name] = value; end
	if for_frontend then config.frontend[name] = value; end
end

-- The rooms of a service differ in little. What usually differs is cut out of a config's text, and the rest is read
-- and written but once: a shape is the text between those values, and what it says. To read each room's 50 settings
-- anew would cost more than all else in a join. What rooms have in common, they share: nobody changes it.
local own_settings = { "meetingTitle"; "meetingDescription"; "meetingId"; "moderators"; "password" };
local shapes = {}; -- the latest first
local most_shapes = 8;

-- A value that ends where it seems to: a text without escapes, a list of such, a number or a name.
local function read_plain_value(text, at)
	local raw, after = text:match('^("[^"\\%c]*")()', at);
	if not raw then raw, after = text:match('^(%[[^%[%]{}\\%c]*%])()', at); end
	if not raw then raw, after = text:match("^([%w.+-]+)()", at); end
	if not raw then return nil; end
	local ok, value = pcall(json.decode, raw);
	if ok and value ~= nil then return value, after; end
	return nil;
end

-- Where the own settings are in a text, as far as they have plain values.
local function find_own_settings(text)
	local places = {};
	for _, name in ipairs(own_settings) do
		local _, to = text:find('"'..name..'"', 1, true);
		local at = to and text:match("^%s*:%s*()", to + 1);
		local value, after;
		if at then value, after = read_plain_value(text, at); end
		if value ~= nil then table.insert(places, { name = name; from = at; after = after; value = value }); end
	end
	table.sort(places, function (a, b) return a.from < b.from; end);
	return places;
end

local function new_shape(text, places)
	local shape = { names = {}; parts = {}; settings = {}; frontend = {}; dropped = {} };
	local at = 1;
	for i, place in ipairs(places) do
		shape.names[i], shape.parts[i] = place.name, text:sub(at, place.from - 1);
		at = place.after;
	end
	table.insert(shape.parts, text:sub(at));

	local object = read_object(table.concat(shape.parts, "null"));
	if not object then return nil; end
	for _, name in ipairs(shape.names) do
		if object[name] ~= json.null then return nil; end -- it is deep inside of something, or there twice
	end
	for name, value in pairs(object) do add_setting(shape, name, value); end
	shape.settings_mt, shape.frontend_mt = { __index = shape.settings }, { __index = shape.frontend };
	shape.payload = '{"type":"ROOM_CONFIG","config":'..json.encode(shape.frontend):sub(1, -2);
	return shape;
end

-- What a text of this shape says, or nil if it is of another.
local function read_by_shape(shape, text)
	local values, at = {}, 1;
	for i, part in ipairs(shape.parts) do
		local from, to = text:find(part, at, true);
		if from ~= at then return nil; end
		at = to + 1;
		if shape.names[i] then
			values[i], at = read_plain_value(text, at);
			if not at then return nil; end
		end
	end
	if at <= #text then return nil; end

	local config = { text = text; dropped = { table.unpack(shape.dropped) } };
	config.settings = setmetatable({}, shape.settings_mt);
	config.frontend = setmetatable({}, shape.frontend_mt);
	local payload = { shape.payload };
	for i, name in ipairs(shape.names) do
		add_setting(config, name, values[i]);
		local value = config.frontend[name];
		if value ~= nil then
			local comma = (payload[2] or next(shape.frontend) ~= nil) and "," or "";
			table.insert(payload, ('%s"%s":%s'):format(comma, name, json.encode(value)));
		end
	end
	table.insert(payload, "}}");
	config.payload = table.concat(payload);
	return config;
end

-- What is usable of a room's config, or nil if it is no JSON object.
local function read_settings(text)
	for _, shape in ipairs(shapes) do
		local config = read_by_shape(shape, text);
		if config then return config; end
	end
	local shape = new_shape(text, find_own_settings(text)) or new_shape(text, {});
	if not shape then return nil; end
	table.insert(shapes, 1, shape);
	shapes[most_shapes + 1] = nil;
	return read_by_shape(shape, text);
end

local refusing_codes = { [400] = true; [404] = true; [409] = true; [410] = true; [422] = true };

-- "ready" with the config, "refused" with a reason, or "failed" with the cause.
local function read_config(code, text)
	if code == 0 then return "failed", text; end
	if code >= 200 and code < 300 then
		local config = read_settings(text);
		if config then return "ready", config; end
	elseif refusing_codes[code] then
		local answer = read_object(text);
		if answer then
			local reason = answer.reason or answer.message or answer.detail;
			return "refused", presentable(reason, "The meeting service refuses this room");
		end
	end
	return "failed", "no room config in an answer with status "..code;
end

local function applying(room, method, ...)
	local ok, err = pcall(room[method], room, ...);
	if not ok then module:log("warn", "%s could not be applied to %s: %s", method, room.jid, err); end
end

local function is_sealed(settings)
	-- With a lobby it is the lobby that lets people in, and membership would lead past it.
	return settings.membersOnly == true and settings.lobbyEnabled ~= true;
end

local simple_setters = {
	{ "password", "set_password" }; { "moderated", "set_moderated" }; { "persistent", "set_persistent" };
	{ "publicRoom", "set_public" }; { "hidden", "set_hidden" }; { "whois", "set_whois" };
	{ "allowInvites", "set_allow_member_invites" }; { "changeSubject", "set_changesubject" };
	{ "historyLength", "set_historylength" };
};

local function apply_settings(room, settings, frontend, text)
	local data = room._data;
	data.muc_webhook_config = text; -- as text, since Prosody's storage refuses a table that is in two places
	for name, data_name in pairs(data_names) do
		local value = frontend[name];
		if value ~= nil then data[data_name] = value; end
	end
	data.max_participants = settings.maxParticipants;
	data.max_occupants = settings.maxParticipants; -- the name that Jitsi's own module reads
	data.is_public = settings.isPublic;
	data.meeting_id = settings.meetingId;

	for _, setter in ipairs(simple_setters) do
		local value = settings[setter[1]];
		if value ~= nil then applying(room, setter[2], value); end
	end
	for _, moderator in ipairs(settings.moderators or {}) do
		local bare = jid.prep(jid.bare(moderator) or "");
		if bare and jid.node(bare) then applying(room, "set_affiliation", true, bare, "owner"); end
	end
	if settings.membersOnly ~= nil then
		-- Whoever is inside already was let in; the switch itself throws strangers out.
		if settings.membersOnly then
			for _, occupant in room:each_occupant() do
				if not room:get_affiliation(occupant.bare_jid) then
					applying(room, "set_affiliation", true, occupant.bare_jid, "member");
				end
			end
		end
		applying(room, "set_members_only", settings.membersOnly);
	end
	-- A new room is locked until its owner has configured it, which is what just happened.
	if data.locked and not data.destroyed then data.locked = nil; end
end

-- The part that needs the room to be a real one, with storage and neighbours.
local function finish_settings(room, settings)
	if subject_from_title and settings.meetingTitle then
		applying(room, "set_subject", room.jid, settings.meetingTitle);
	end
	if settings.lobbyEnabled and not room._data.lobbyroom then
		prosody.events.fire_event("create-lobby-room", { room = room });
		if not room._data.lobbyroom then
			module:log("warn", "%s wants a lobby, but no module answers create-lobby-room", room.jid);
		end
	end
	if room:get_persistent() then room:save(true); end
end

-- ---------------------------------------------------------------------------------------------------------------
-- Who is asked for
-- ---------------------------------------------------------------------------------------------------------------

-- Lists that belong to others, so that a slip in one is theirs to complain of; here it must not stop the module.
local function texts_of_option(name, default)
	local list = {};
	for member in module:get_option_inherited_set(name, default or {}) do
		if type(member) == "string" then table.insert(list, member); end
	end
	return list;
end

local function union_of_options(names)
	local union = {};
	for _, name in ipairs(names) do
		for _, member in ipairs(texts_of_option(name)) do union[jid.prep(member) or member] = true; end
	end
	return union;
end

local admins = union_of_options { "admins" };
local whitelisted = union_of_options {
	"muc_access_whitelist"; "muc_lobby_whitelist"; "muc_password_whitelist"; "token_verification_allowlist";
};
for member in pairs(exempt_jids) do whitelisted[jid.prep(member) or member] = true; end

local bot_prefixes = {
	texts_of_option("recorder_prefixes", { "recorder@recorder." });
	texts_of_option("transcriber_prefixes", { "transcriber@recorder." });
};

-- By the sender's JID only, which the server vouches for. A nick such as "focus", or a child element such as
-- jigasi's <initiator>, can be written by any client.
local function is_exempt(full_jid)
	local node, host = jid.split(full_jid);
	local bare = node and node.."@"..host or host;
	if admins[bare] or whitelisted[bare] or whitelisted[host] then return true; end
	if prosody.hosts[host] then -- a prefix names no whole host, and strangers have servers of any name
		for _, list in ipairs(bot_prefixes) do
			for _, prefix in ipairs(list) do
				if bare:sub(1, #prefix) == prefix then return true; end
			end
		end
	end
	return false;
end

local function is_healthcheck(room_jid)
	return room_jid:sub(1, 21) == "__jicofo-health-check";
end

local guest_providers = { ["anonymous"] = true; ["jitsi-anonymous"] = true; ["token"] = true };

local function identity_of(origin)
	local user = origin and origin.jitsi_meet_context_user;
	if type(user) ~= "table" then user = {}; end
	local id = user.id;
	if type(id) == "number" then id = ("%.14g"):format(id); end
	return {
		id = type(id) == "string" and id ~= "" and id or nil;
		email = type(user.email) == "string" and user.email ~= "" and user.email or nil;
		name = type(user.name) == "string" and user.name ~= "" and user.name or nil;
	};
end

local function is_guest(origin, identity)
	if origin.auth_token or identity.id or identity.email then return false; end
	local host = prosody.hosts[origin.host];
	return host ~= nil and host.users ~= nil and guest_providers[host.users.name] == true;
end

local function display_name(stanza, identity)
	local nick = stanza and stanza:get_child_text("nick", xmlns_nick);
	if nick and nick ~= "" then return nick; end
	return identity.name or (stanza and jid.resource(stanza.attr.to)) or nil;
end

local function meeting_id(room)
	if not room then return nil; end
	return room._data.meeting_id or room._data.meetingId;
end

local function access_question(origin, stanza, room_jid, room)
	local identity = identity_of(origin);
	return {
		roomName = jid.node(room_jid) or room_jid;
		roomJid = room_jid;
		userJid = jid.bare(stanza.attr.from);
		userName = display_name(stanza, identity);
		userId = identity.id;
		userEmail = identity.email;
		guest = is_guest(origin, identity);
		bearerToken = send_token and type(origin.auth_token) == "string" and origin.auth_token or nil;
		meetingId = send_meeting_id and meeting_id(room) or nil;
		timestamp = os.time();
	};
end

-- ---------------------------------------------------------------------------------------------------------------
-- Room config, asked for once in a room's life
-- ---------------------------------------------------------------------------------------------------------------
-- A record is kept by the room's JID and not in the room, because it is there before the room is: from the first
-- allowed join, through mod_muc's making of the room, until the room is destroyed.
--
--   pending ──> ready      settings are known; applied once the room is there
--          ├──> refused    the meeting service wants no such room; forgotten, the next join asks anew
--          └──> failed     nobody could say; forgotten likewise (or, with fail_open, ready without settings)

-- A join that waited across a reload of mod_muc must not look into the old one, which would load rooms that the new
-- one has.
local function muc_now()
	return muc_host.modules.muc;
end

local function room_of(room_jid)
	local current = muc_now();
	return current and current.get_room_from_jid(room_jid) or nil;
end

local function config_message(record, to)
	if not record.message then
		record.message = st.message({ from = record.jid, type = "groupchat" })
			:tag("json-message", { xmlns = xmlns_jitmeet }):text(record.payload):up();
	end
	local message = st.clone(record.message);
	message.attr.to = to;
	return message;
end

local function apply_record(record, room)
	record.room = room;
	if record.applied_to == room or not record.settings then return; end
	record.applied_to = room;
	safely("Applying the config of "..record.jid, apply_settings, room, record.settings, record.frontend, record.text);
end

local start_duration; -- see "Duration"

local function take_config(record, config)
	record.state, record.text, record.degraded = "ready", config.text, nil;
	record.settings, record.frontend = config.settings, config.frontend;
	record.payload, record.message = config.payload, nil;
	if config.dropped[1] then
		table.sort(config.dropped);
		local names = table.concat(config.dropped, ", ");
		module:log("warn", "Settings of %s with a wrong type were dropped: %s", record.jid, names);
	end
	local room = state.records[record.jid] == record and room_of(record.jid);
	if not room then return; end
	-- Made before the answer came: by somebody who was not asked for, such as jicofo.
	apply_record(record, room);
	finish_settings(room, record.settings);
	if room:has_occupant() then room:broadcast(config_message(record)); end
	start_duration(room);
end

-- What a persistent room brought through a restart is better than nothing.
local function stored_config(room_jid)
	local room = room_of(room_jid);
	local text = room and room._data.muc_webhook_config;
	return type(text) == "string" and read_settings(text) or nil;
end

local function settle_record(record, outcome, detail)
	local current = state.records[record.jid] == record;
	local stored = outcome == "failed" and current and stored_config(record.jid);
	if outcome == "ready" then
		safely("Taking in the config of "..record.jid, take_config, record, detail);
	elseif outcome == "refused" then
		module:log("info", "Room %s is refused: %s", record.jid, detail);
		record.state, record.reason = "refused", detail;
	elseif stored then
		module:log("warn", "No config for %s (%s), it keeps the one it had", record.jid, detail);
		safely("Taking in the config of "..record.jid, take_config, record, stored);
	else
		module:log("warn", "No config for %s: %s", record.jid, detail);
		record.state, record.degraded = fail_open and "ready" or "failed", fail_open or nil;
	end
	if current and (record.state == "failed" or record.state == "refused") then
		state.records[record.jid] = nil;
	end
	local waiters = record.waiters;
	record.waiters = {};
	for _, wake in ipairs(waiters) do safely("A join into "..record.jid, wake); end
end

local function fetch_config(record)
	record.asked_at = now();
	local body = {
		roomName = jid.node(record.jid) or record.jid; roomJid = record.jid; timestamp = os.time();
		creator = record.creator;
	};
	post("room-created", json.encode(body), function (code, answer)
		settle_record(record, read_config(code, answer));
	end);
end

-- Records whose room never came to be, or went without a word.
local function forget_leftovers()
	if now() - state.swept_at < 60 then return; end
	state.swept_at = now();
	for room_jid, record in pairs(state.records) do
		if record.state ~= "pending" and now() - record.asked_at > 60 and not room_of(room_jid) then
			state.records[room_jid] = nil;
		end
	end
	for room_jid, life in pairs(state.lives) do
		if not life.timer and not room_of(room_jid) then state.lives[room_jid] = nil; end
	end
end

local function new_record(room_jid, room, creator)
	forget_leftovers();
	local record = { jid = room_jid; state = "pending"; room = room; creator = creator; asked_at = now(); waiters = {}; };
	state.records[room_jid] = record;
	return record;
end

-- Only in an async context: waits until it is known how the room shall be.
local function await_record(room_jid, creator)
	local record = state.records[room_jid];
	if not record then
		record = new_record(room_jid, room_of(room_jid), creator);
		fetch_config(record);
	end
	if record.state == "pending" then
		local wait, done = async.waiter();
		table.insert(record.waiters, done);
		wait();
	elseif record.degraded and now() - record.asked_at > 10 then
		fetch_config(record); -- in the background: the meeting service may be back
	end
	return record;
end

-- ---------------------------------------------------------------------------------------------------------------
-- Whether somebody may join
-- ---------------------------------------------------------------------------------------------------------------
-- A sidecar can give the room's config along with its yes. The first join into a room then leads: it makes the record
-- and fills it with its answer. Whoever else comes meanwhile asks for a decision only, and waits for the record as ever.
-- What becomes of the lead's session is of no importance, since all this is done where the answer comes in.

-- JSON texts, each with a byte 0x1E before it and a line feed behind it (RFC 7464); 0x1E cannot be in one of them.
local function read_sequence(text)
	local first, rest = text:match("^\30([^\30]*)\n()");
	if not first then return text, nil; end
	return first, text:match("^\30([^\30]*)\n", rest);
end

-- The lead has no config to give.
local function pass_on(record)
	if record.waiters[1] or room_of(record.jid) then
		fetch_config(record);
	elseif state.records[record.jid] == record then
		state.records[record.jid] = nil;
	end
end

local function settle_lead(record, text, headers)
	local status = text and headers and tonumber(headers["config-status"]);
	if status then
		settle_record(record, read_config(status, text));
	else
		pass_on(record);
	end
end

-- Only in an async context: asks and waits for the answer. Gives its status, the decision, and the room's record if
-- that was settled along with it.
local function ask_access(question, room_jid)
	local wait, done = async.waiter();
	local body = json.encode(question);
	local code, decision, settled;

	local function take(answer_code, answer)
		code, decision = answer_code, answer;
		done();
	end

	if not state.is_sidecar or now() < state.no_joins_until then
		post("validate-access", body, take);
	else
		local record;
		if not state.records[room_jid] then record = new_record(room_jid, room_of(room_jid), question.userJid); end
		post(record and "join?config=1" or "join", body, function (answer_code, answer, headers)
			local is_too_old = headers and (answer_code == 404 or answer_code == 405);
			local first, second = read_sequence(answer);
			if record then safely("Taking in the config of "..room_jid, settle_lead, record, second, headers); end
			if record and record.state ~= "pending" then settled = record; end
			if not is_too_old then return take(answer_code, first); end
			state.no_joins_until = now() + 60;
			post("validate-access", body, take);
		end);
	end
	wait();
	return code, decision, settled;
end

-- ---------------------------------------------------------------------------------------------------------------
-- The gate
-- ---------------------------------------------------------------------------------------------------------------

local unavailable_text = "The meeting service cannot be reached. Please try again in a moment.";

local function refuse(event, room_jid, kind, condition, text)
	event.origin.send(st.error_reply(event.stanza, kind, condition, text, room_jid));
end

-- While the join waited its user may have gone. Never ask for the connection: with stream management a session
-- lives on without one.
local function is_gone(origin, stanza, ticket)
	return origin.destroyed or ticket.cancelled or (origin.full_jid ~= nil and origin.full_jid ~= stanza.attr.from);
end

-- Whether mod_muc would refuse to make the room anyhow: then there is nothing to ask for.
local creation = module:get_option("restrict_room_creation");
local creation_domain = module.host:gsub("^[^%.]+%.", "");
local function may_create(event)
	if not creation then return true; end
	if module.may then return module:may("muc:create-room", event, true); end
	return creation == "local" and jid.host(event.stanza.attr.from) == creation_domain;
end

-- Only in an async context. Returns true if the join ends here; otherwise it may go on to mod_muc.
local function decide(event, room_jid, ticket)
	local origin, stanza = event.origin, event.stanza;
	local from = stanza.attr.from;

	local question = access_question(origin, stanza, room_jid, room_of(room_jid));
	local code, decision, record = ask_access(question, room_jid);
	local verdict, detail = read_decision(code, decision);
	if is_gone(origin, stanza, ticket) then return true; end
	if verdict == "deny" then
		count("denied");
		module:log("info", "A join into %s was denied: %s", room_jid, detail);
		refuse(event, room_jid, "cancel", "not-allowed", detail);
		return true;
	elseif verdict == "unavailable" then
		count("unavailable");
		module:log("warn", "No decision about a join into %s (%s)%s", room_jid, detail, fail_open and ", let in" or "");
		if not fail_open then
			refuse(event, room_jid, "wait", "remote-server-timeout", unavailable_text);
			return true;
		end
	end

	-- The room may be destroyed, and made anew, under those who wait for its config.
	for _ = 1, 3 do
		record = record or await_record(room_jid, jid.bare(from));
		if is_gone(origin, stanza, ticket) then return true; end
		if record.state ~= "ready" or state.records[room_jid] == record then break; end
		record = nil;
	end
	if record and record.state == "refused" then
		count("refused");
		refuse(event, room_jid, "cancel", "not-allowed", record.reason);
		return true;
	elseif not record or record.state ~= "ready" then
		count("unavailable");
		refuse(event, room_jid, "wait", "remote-server-timeout", unavailable_text);
		return true;
	end

	local room = room_of(room_jid);
	if room then
		apply_record(record, room);
	elseif record.settings and record.settings.password and record.settings.password ~= "" then
		-- mod_muc would make the room first and ask for the password then, and leave the room behind.
		local x = stanza:get_child("x", xmlns_muc);
		if x:get_child_text("password", xmlns_muc) ~= record.settings.password then
			refuse(event, room_jid, "auth", "not-authorized");
			return true;
		end
	end
	count("allowed");
	return false;
end

local function admit(event, room_jid, ticket)
	state.pending_joins = state.pending_joins + 1;
	measure.pending(state.pending_joins);
	local ok, ended = xpcall(decide, debug.traceback, event, room_jid, ticket);
	state.pending_joins = state.pending_joins - 1;
	measure.pending(state.pending_joins);
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

-- Stanzas of components and of other servers share one thread, and those sent from a timer have none: waiting there
-- would hold up strangers. Their joins wait in a thread of their own and are sent through again afterwards.
local function admit_detached(event_name, event, room_jid)
	local key = event.stanza.attr.from.."\0"..room_jid;
	if state.detached[key] then state.detached[key].cancelled = true; end
	local ticket = {};
	state.detached[key] = ticket;
	async.runner(function ()
		local ended = admit(event, room_jid, ticket);
		if state.detached[key] == ticket then state.detached[key] = nil; end
		if not ended then let_through(event_name, event); end
	end, {
		error = function (_, err) module:log("error", "A join into %s failed: %s", room_jid, err); end;
	}):run(true);
	return true;
end

local function gate(event_name, event)
	local origin, stanza = event.origin, event.stanza;
	local from, room_jid = stanza.attr.from, jid.bare(stanza.attr.to);
	if stanza.attr.type ~= nil then
		local ticket = state.detached[from.."\0"..room_jid];
		if ticket and (stanza.attr.type == "unavailable" or stanza.attr.type == "error") then ticket.cancelled = true; end
		return;
	end
	if not stanza:get_child("x", xmlns_muc) then return; end -- no join; mod_muc says what it thinks of it
	if state.grants[stanza] then
		state.grants[stanza] = nil;
		return;
	end
	if is_exempt(from) then
		count("exempt");
		return;
	end

	local room = muc_now().get_room_from_jid(room_jid);
	if room == false then return; end -- mod_muc cannot load it and says so
	if room and room._data.destroyed then
		if room._data.locked >= os.time() then return; end -- mod_muc answers that it is gone
		room = nil;
	end
	if room then
		if room:get_occupant_jid(from) then return; end -- is in already: an update, a new nick or a resync
	elseif not jid.prep(room_jid, true) or not may_create(event) then
		return; -- mod_muc refuses it
	end
	if not jid.resource(stanza.attr.to) then
		-- mod_muc would make a room, trip over the missing nick and leave the room behind.
		refuse(event, room_jid, "modify", "jid-malformed", "A nickname is needed");
		return true;
	end
	if misconfigured then
		refuse(event, room_jid, "wait", "internal-server-error", "The meeting service is not set up rightly on this server");
		return true;
	end

	if origin.thread and origin.thread.thread == coroutine.running() then
		if admit(event, room_jid, {}) then return true; end
		if muc_now() ~= muc then
			-- mod_muc was reloaded or unloaded meanwhile; this event would still go to its old self.
			let_through(event_name, event);
			return true;
		end
		return;
	end
	return admit_detached(event_name, event, room_jid);
end

-- ---------------------------------------------------------------------------------------------------------------
-- Inside the room: what the config asks for at each join
-- ---------------------------------------------------------------------------------------------------------------

local function record_of(room)
	local record = state.records[room.jid];
	return record and record.settings and record or nil;
end

local function is_listed(moderators, identity)
	for _, moderator in ipairs(moderators or {}) do
		if moderator == identity.id or identity.email and moderator:lower() == identity.email:lower() then return true; end
	end
	return false;
end

-- Jitsi's users have a new random JID on each connection: a moderator is known by the token, and an allowed user of
-- a members-only room becomes a member here. Their role was worked out before the hook runs, so it is set as well.
local function give_affiliation(event)
	local room, occupant = event.room, event.occupant;
	local record = record_of(room);
	if not record then return; end
	local affiliation = room:get_affiliation(occupant.bare_jid);
	local wanted;
	if affiliation ~= "owner" and affiliation ~= "outcast" and is_listed(record.settings.moderators, identity_of(event.origin)) then
		wanted = "owner";
	elseif not affiliation and is_sealed(record.settings) and not room._data.lobbyroom then
		wanted = "member";
	else
		return;
	end
	applying(room, "set_affiliation", true, occupant.bare_jid, wanted);
	occupant.role = room:get_default_role(wanted);
end

local function real_occupants(room)
	local n = 0;
	for _, occupant in room:each_occupant() do
		if not is_exempt(occupant.bare_jid) then n = n + 1; end
	end
	return n;
end

-- Nothing waits between this count and the join, so no two joins can be counted as the same one.
local function limit_participants(event)
	local room, stanza = event.room, event.stanza;
	local limit = room._data.max_participants;
	if not limit or not event.is_first_session or is_exempt(stanza.attr.from) then return; end
	if real_occupants(room) >= limit then
		module:log("info", "A join into %s was turned away: it holds %d already", room.jid, limit);
		event.origin.send(st.error_reply(stanza, "cancel", "service-unavailable", "The meeting is full", room.jid));
		return true;
	end
end

local function life_of(room)
	local life = state.lives[room.jid];
	if not life then
		life = { id = new_uuid(); sequence = 0; people = {} };
		state.lives[room.jid] = life;
	end
	return life;
end

local function greet(event)
	local room = event.room;
	local record = record_of(room);
	if not record then return; end
	room:route_stanza(config_message(record, event.jid));

	local frontend = record.frontend;
	if frontend.autoRecord == true and frontend.recordingEnabled == true and not is_exempt(event.jid) then
		local life = life_of(room);
		if not life.recording then
			life.recording = true;
			room:route_stanza(st.message({ from = room.jid, to = event.jid, type = "groupchat" })
				:tag("json-message", { xmlns = xmlns_jitmeet })
					:text(json.encode({ type = "START_RECORDING", auto = true })):up());
		end
	end
end

-- ---------------------------------------------------------------------------------------------------------------
-- Events, for a meeting service that asked to hear of them
-- ---------------------------------------------------------------------------------------------------------------
-- A lane per room keeps the order; a few lanes send side by side. An event stays at the head of its lane until the
-- other side has taken it, with the same id at each try. Its number within the life of the room shows what the
-- queue, which is bounded, had to leave out.

local most_in_flight = 4;
local taken_as_poison = { [400] = true; [409] = true; [410] = true; [413] = true; [422] = true };

local pump;

local function drop_event(room_jid, why)
	local queue = state.queue;
	queue.dropped = queue.dropped + 1;
	measure.events_dropped(1);
	if now() - (queue.complained_at or 0) > 10 then
		queue.complained_at = now();
		module:log("warn", "An event of %s was dropped: %s (%d dropped so far)", room_jid, why, queue.dropped);
	end
end

local function pump_later()
	local queue = state.queue;
	if queue.timer then return; end
	queue.timer = timer.add_task(math.max(0, queue.paused_until - now()), function ()
		queue.timer = nil;
		pump();
	end);
end

local function pause_queue()
	local queue = state.queue;
	queue.failures = queue.failures + 1;
	queue.paused_until = now() + math.min(30, 0.25 * 2 ^ queue.failures) * (0.75 + math.random() / 2);
end

local function settle_event(lane, item, code, answer)
	local queue = state.queue;
	queue.in_flight = queue.in_flight - 1;
	lane.busy = false;
	local poison = taken_as_poison[code] or code == 404 and read_object(answer) ~= nil;
	if code >= 200 and code < 300 or poison then
		if poison then drop_event(lane.jid, "it was answered with status "..code); end
		queue.failures = 0;
		queue.size = queue.size - 1;
		table.remove(lane, 1);
		measure.queued(queue.size);
	else
		module:log("debug", "%s of %s waits: %s", item.endpoint, lane.jid, code == 0 and answer or code);
		pause_queue();
	end
	if lane[1] then
		table.insert(queue.ready, lane);
	else
		queue.lanes[lane.jid] = nil;
	end
	pump();
end

function pump()
	local queue = state.queue;
	if not webhook_url or state.stopped then return; end
	if queue.ready[1] and now() < queue.paused_until then return pump_later(); end
	while queue.in_flight < most_in_flight and queue.ready[1] and now() >= queue.paused_until do
		local lane = table.remove(queue.ready, 1);
		local item = lane[1];
		lane.busy = true;
		queue.in_flight = queue.in_flight + 1;
		local headers = headers_for(webhook_secret, { ["Idempotency-Key"] = item.id });
		post_once(state.deliveries, webhook_url.."/"..item.endpoint, item.body, headers, webhook_timeout, function (code, answer)
			settle_event(lane, item, code, answer);
		end);
	end
end

local function enqueue(room_jid, item)
	local queue = state.queue;
	if queue.size >= queue_size then
		drop_event(room_jid, "the queue is full");
		return;
	end
	local lane = queue.lanes[room_jid];
	if not lane then
		lane = { jid = room_jid; busy = false };
		queue.lanes[room_jid] = lane;
		table.insert(queue.ready, lane);
	end
	table.insert(lane, item);
	queue.size = queue.size + 1;
	measure.queued(queue.size);
	pump();
end

local function tell(name, room, details)
	if not wanted_events[name] or misconfigured then return; end
	local life = life_of(room);
	life.sequence = life.sequence + 1;
	local item = { id = new_uuid(); endpoint = name };
	local body = {
		event = name; eventId = item.id; sequence = life.sequence; roomInstance = life.id;
		roomName = jid.node(room.jid) or room.jid; roomJid = room.jid; meetingId = meeting_id(room); timestamp = os.time();
	};
	for key, value in pairs(details) do body[key] = value; end
	item.body = json.encode(body);
	enqueue(room.jid, item);
end

-- Jitsi keeps the main room, by making it persistent, while its people are in breakout rooms.
local function is_in_breakout(room)
	return room._data.breakout_rooms_active == true;
end

local function is_watched(room)
	return next(wanted_events) ~= nil and not is_healthcheck(room.jid);
end

local function about(person, nick)
	return {
		userJid = person.jid; userName = person.name; userId = person.id; userEmail = person.email; guest = person.guest;
		nick = jid.resource(nick); occupantJid = nick;
	};
end

local function on_joined(event)
	local room, occupant = event.room, event.occupant;
	if not is_watched(room) or is_exempt(occupant.bare_jid) then return; end
	local identity = identity_of(event.origin);
	local person = {
		jid = occupant.bare_jid; name = display_name(event.stanza, identity); id = identity.id; email = identity.email;
		joined_at = os.time(); moderator = occupant.role == "moderator";
	};
	if event.origin then person.guest = is_guest(event.origin, identity); end
	life_of(room).people[event.nick] = person;
	local details = about(person, event.nick);
	details.role, details.moderator, details.participants = occupant.role, person.moderator, real_occupants(room);
	tell("user-joined", room, details);
end

local departures = { ["301"] = "banned"; ["307"] = "kicked"; ["321"] = "removed"; ["322"] = "removed"; ["333"] = "disconnected" };

-- Runs for each presence that goes out, so it looks before it works.
local function on_presence(event)
	local room, occupant = event.room, event.occupant;
	local life = state.lives[room.jid];
	local person = life and life.people[occupant.nick];
	if not person then return; end
	if not occupant.role then
		for status in event.x:childtags("status") do
			local departure = departures[status.attr.code];
			if departure then
				person.departure, person.departed_by, person.departure_text = departure, event.actor, event.reason;
			end
		end
		return;
	end
	local moderator = occupant.role == "moderator";
	if moderator == person.moderator then return; end
	person.moderator = moderator;
	local details = about(person, occupant.nick);
	details.moderator, details.role = moderator, occupant.role;
	details.affiliation = room:get_affiliation(occupant.bare_jid) or "none";
	if event.actor then
		details.actorJid = jid.bare(event.actor);
		details.actorNick = jid.resource(room:get_occupant_jid(event.actor));
	end
	details.reason = event.reason;
	tell("moderator-changed", room, details);
end

local function departure_of(event, person)
	if event.room.destroying then return "room-destroyed"; end
	if person.departure then return person.departure; end
	if is_in_breakout(event.room) and event.stanza and event.stanza:get_child_text("status") == "switch_room" then
		return "breakout-room"; -- is still in the meeting, and will join again
	end
	local origin = event.origin;
	if origin and origin.full_jid and prosody.full_sessions[origin.full_jid] ~= origin then return "disconnected"; end
	return "left";
end

local function on_left(event)
	local room = event.room;
	local life = state.lives[room.jid];
	local person = life and life.people[event.nick];
	if not person then return; end
	life.people[event.nick] = nil;
	local stanza = event.stanza;
	if stanza and stanza.attr.type == nil then -- has not left: goes on under another nick
		if not life.people[stanza.attr.to] then life.people[stanza.attr.to] = person; end
		return;
	end
	local details = about(person, event.nick);
	details.reason = departure_of(event, person);
	details.reasonText = person.departure_text;
	details.actorJid = person.departed_by and jid.bare(person.departed_by) or nil;
	details.durationSeconds = math.max(0, os.time() - person.joined_at);
	details.participants = real_occupants(room);
	tell("user-left", room, details);
end

local function on_destroyed(event)
	local room = event.room;
	local record = state.records[room.jid];
	if record and (record.room == nil or record.room == room) then
		state.records[room.jid] = nil;
	end
	local life = state.lives[room.jid];
	state.lives[room.jid] = nil;
	if life and life.timer then timer.stop(life.timer); end
	-- Health checks, and the lobby's and other modules' rooms that nobody was asked for, have nothing to tell.
	if not is_watched(room) or room._data.destroyed or room.muc_webhook_over then return; end
	room.muc_webhook_over = true;
	state.lives[room.jid] = life;
	tell("room-destroyed", room, {
		reason = life and life.ending or (room.destroying and "destroyed") or "empty";
		reasonText = event.reason;
	});
	state.lives[room.jid] = nil;
end

-- ---------------------------------------------------------------------------------------------------------------
-- Duration
-- ---------------------------------------------------------------------------------------------------------------
-- Counted from the first real participant's join, by the clock on the wall and in the room's own data, so that it
-- goes on over a reload of the module and, for a persistent room, over a restart of Prosody.

local function end_meeting(room, minutes)
	local text = ("The meeting has reached its limit of %g minutes"):format(minutes);
	module:log("info", "Meeting in %s ends: %s", room.jid, text);
	life_of(room).ending = "max-duration";
	room._data.muc_webhook_started_at = nil;
	if not room:get_persistent() or is_in_breakout(room) then
		room:set_persistent(false);
		room:destroy(nil, text);
		return;
	end
	-- Destroyed, a persistent room would be a tombstone for weeks; only its meeting is over.
	for nick, occupant in room:each_occupant() do
		if not is_exempt(occupant.bare_jid) then room:set_role(true, nick, nil, text); end
	end
	life_of(room).ending = nil;
end

local function warn_of_end(room, minutes)
	local text = ("This meeting ends in %g %s."):format(minutes, minutes == 1 and "minute" or "minutes");
	room:broadcast(st.message({ from = room.jid, type = "groupchat" }, text)
		:tag("json-message", { xmlns = xmlns_jitmeet })
			:text(json.encode({ type = "MEETING_ENDING", minutesLeft = minutes; reason = "max-duration" })):up());
end

function start_duration(room)
	local record, life = record_of(room), life_of(room);
	if life.timer then
		timer.stop(life.timer);
		life.timer = nil;
	end
	local minutes = record and record.settings.maxDurationMinutes;
	local started_at = room._data.muc_webhook_started_at;
	if not enforce_duration or not minutes or not started_at then return; end

	local left = started_at + minutes * 60 - os.time();
	local until_warning = left - warning_minutes * 60;
	local warns = not life.warned and warning_minutes > 0 and until_warning > 0;
	life.timer = timer.add_task(math.max(0, warns and until_warning or left), function ()
		life.timer = nil;
		if room_of(room.jid) ~= room then return; end
		if not warns then
			safely("Ending the meeting in "..room.jid, end_meeting, room, minutes);
			return;
		end
		life.warned = true;
		safely("Warning of the end in "..room.jid, warn_of_end, room, warning_minutes);
		start_duration(room);
	end);
end

local function note_start(event)
	local room = event.room;
	if room._data.muc_webhook_started_at or is_exempt(event.occupant.bare_jid) then return; end
	if is_healthcheck(room.jid) then return; end
	room._data.muc_webhook_started_at = os.time();
	start_duration(room);
end

local function note_end(event)
	local room = event.room;
	if room.destroying or not room._data.muc_webhook_started_at or not room:get_persistent() then return; end
	if is_in_breakout(room) or real_occupants(room) > 0 then return; end
	local life = life_of(room);
	room._data.muc_webhook_started_at, life.warned, life.recording = nil, nil, nil;
	start_duration(room);
end

-- ---------------------------------------------------------------------------------------------------------------
-- Hooks
-- ---------------------------------------------------------------------------------------------------------------

-- After mod_muc's defaults and the creator's wishes, before the room is tracked at -1000.
module:hook("muc-room-pre-create", function (event)
	local room = event.room;
	local record = state.records[room.jid];
	if record then
		apply_record(record, room);
	elseif not misconfigured and not (is_healthcheck(room.jid) and is_exempt(event.stanza.attr.from)) then
		fetch_config(new_record(room.jid, room, jid.bare(event.stanza.attr.from)));
	end
end, -999);

module:hook("muc-occupant-pre-join", limit_participants, 11); -- before Jitsi's limit, rate and queue
module:hook("muc-occupant-pre-join", give_affiliation, -3); -- before the lobby and members-only

-- The rest only watches: whatever goes wrong in there must not spoil the join that it watches.
local function watch(event_name, handler, priority)
	module:hook(event_name, function (event) safely(event_name, handler, event); end, priority);
end

watch("muc-room-pre-create", function (event)
	local record = record_of(event.room);
	if record then finish_settings(event.room, record.settings); end
end, -1001); -- the room is tracked, at -1000
watch("muc-occupant-joined", note_start, 1);
watch("muc-occupant-joined", on_joined);
watch("muc-occupant-session-new", greet, 10); -- after history and subject
watch("muc-broadcast-presence", on_presence);
watch("muc-occupant-left", on_left);
watch("muc-occupant-left", note_end, -0.5); -- before mod_muc destroys an empty room, at -1
watch("muc-room-destroyed", on_destroyed, 5); -- before mod_muc forgets it, at 0

-- ---------------------------------------------------------------------------------------------------------------
-- For operators: prosodyctl shell, and advice
-- ---------------------------------------------------------------------------------------------------------------

-- What works but is probably not meant.
local function advice()
	local list = {};
	for name, url in pairs { muc_webhook_url = webhook_url, muc_webhook_fallback_url = fallback_url } do
		local host = url:match("^http://%[?([^/%]]-)%]?:?%d*$") or url:match("^http://([^/:]+)");
		local secret = name == "muc_webhook_url" and webhook_secret or name ~= "muc_webhook_url" and fallback_secret;
		if host and secret and host ~= "localhost" and not host:find("^127%.") and host ~= "[" then
			table.insert(list, ("%s is not https: the secret can be read on the way to %s"):format(name, host));
		end
	end
	if webhook_url and webhook_url == fallback_url then
		table.insert(list, "muc_webhook_fallback_url is muc_webhook_url: it helps only if it leads elsewhere");
	end
	if fail_open then
		table.insert(list, "muc_webhook_fail_open lets everybody in while the meeting service cannot be reached");
	end
	table.sort(list);
	return list;
end

local function count_of(set)
	local n = 0;
	for _ in pairs(set) do n = n + 1; end
	return n;
end

local function print_status(print)
	print(("%s asks %s"):format(module.host, webhook_url or "nobody"));
	for _, problem in ipairs(problems) do print("  problem: "..problem); end
	for _, hint in ipairs(advice()) do print("  advice: "..hint); end
	local counts, queue = state.counts, state.queue;
	print(("  joins: %d pending, %d allowed, %d denied, %d into refused rooms, %d without a decision, %d not asked for"):format(
		state.pending_joins, counts.allowed, counts.denied, counts.refused, counts.unavailable, counts.exempt));
	print(("  rooms: %d with a config, or waiting for one"):format(count_of(state.records)));
	print(("  events: %d waiting, %d dropped%s"):format(queue.size, queue.dropped,
		queue.failures > 0 and (", the last %d tries failed"):format(queue.failures) or ""));
	if fallback_url then
		local direct = state.primary_down_until > now();
		print(("  fallback: %s, %s"):format(fallback_url, direct and "in use" or "not in use"));
	end
end

local function print_room(print, room_jid)
	local record, life, room = state.records[room_jid], state.lives[room_jid], room_of(room_jid);
	if not record and not room then return false; end
	print(("%s is %s"):format(room_jid, room and ("there, with %d participants"):format(real_occupants(room)) or "not there"));
	if record then
		print(("  config: %s, asked for %.0f seconds ago%s"):format(record.degraded and "Prosody's defaults" or record.state,
			now() - record.asked_at, record.waiters[1] and (", %d joins wait for it"):format(#record.waiters) or ""));
		local settings = {};
		for name in pairs(record.settings and room_settings or {}) do settings[name] = record.settings[name]; end
		for name in pairs(record.settings and frontend_settings or {}) do settings[name] = record.frontend[name]; end
		if settings.password then settings.password = "(set)"; end
		local names = {};
		for name in pairs(settings) do table.insert(names, name); end
		table.sort(names);
		for _, name in ipairs(names) do print(("    %s = %s"):format(name, json.encode(settings[name]))); end
	else
		print("  config: none yet; the next join asks for it");
	end
	if life then print(("  events so far: %d"):format(life.sequence)); end
	local started_at = room and room._data.muc_webhook_started_at;
	if started_at then
		print(("  meeting since %s%s"):format(os.date("%Y-%m-%d %H:%M:%S", started_at), life and life.timer and ", limited" or ""));
	end
	return true;
end

-- The guard shows each component's status, also where there is no gate.
local guards = module:shared("/*/muc_webhook/guards");
local section = module:shared("/*/admin_shell/env").muc_webhook;

function section:room(name)
	if type(name) ~= "string" then return nil, "Which room? Give its name or its JID"; end
	local found = 0;
	for host, guard in pairs(guards) do
		local room_jid = name:find("@", 1, true) and name or name.."@"..host;
		if guard.gate and guard.gate.room(self.session.print, room_jid) then found = found + 1; end
	end
	if found == 0 then return nil, "Nothing is known of "..name; end
	return true, ("%d room(s)"):format(found);
end

setmetatable(section, {
	help = { -- Prosody 13 reads this; 0.12 takes no notice
		desc = "Joins and rooms that a meeting service decides about";
		commands = {
			status = { desc = "What was asked and answered so far", args = array {}, module = module.name };
			room = { desc = "What is known of a room", args = array { { name = "room", type = "string" } }, module = module.name };
		};
	};
});

for _, hint in ipairs(advice()) do module:log("warn", "%s", hint); end
if misconfigured and module.set_status then module:set_status("error", problems[1]); end

-- ---------------------------------------------------------------------------------------------------------------
-- Reload, unload, shutdown
-- ---------------------------------------------------------------------------------------------------------------

local function each_room_here(f)
	for room in muc_now().live_rooms() do safely("Visiting "..room.jid, f, room); end
end

local function stop_timers()
	if state.queue.timer then
		timer.stop(state.queue.timer);
		state.queue.timer = nil;
	end
	for _, life in pairs(state.lives) do
		if life.timer then
			timer.stop(life.timer);
			life.timer = nil;
		end
	end
end

local function end_all(under_way)
	local ends = {};
	for _, give_up in pairs(under_way) do table.insert(ends, give_up); end
	for _, give_up in ipairs(ends) do give_up("module unloaded"); end
end

-- Whoever waits is told now that there is no decision, instead of never.
local function end_questions()
	end_all(state.questions);
end

local queue_store = module:open_store("muc_webhook_queue");

local function put_queue_away()
	local items = {};
	for _, lane in pairs(state.queue.lanes) do
		for _, item in ipairs(lane) do
			table.insert(items, { room = lane.jid; id = item.id; endpoint = item.endpoint; body = item.body });
		end
	end
	if not items[1] then return; end
	local ok, err = queue_store:set(nil, { items = items });
	if not ok then module:log("error", "%d events could not be kept for later: %s", #items, err); end
end

local function take_queue_back()
	local kept = queue_store:get(nil);
	if not kept or type(kept.items) ~= "table" then return; end
	queue_store:set(nil, nil);
	for _, item in ipairs(kept.items) do
		enqueue(item.room, { id = item.id; endpoint = item.endpoint; body = item.body });
	end
end

local function stop(reloading)
	stop_timers();
	pool.close();
	if reloading then return; end
	state.stopped = true;
	end_questions();
	end_all(state.deliveries);
	put_queue_away();
end

module:hook_global("server-stopping", end_questions, 10);
module:hook_global("server-stopped", put_queue_away);

if saved then
	each_room_here(start_duration);
	pump();
else
	take_queue_back();
end

return {
	admit = gate; save = function () return state; end; stop = stop; status = print_status; room = print_room;
	pool = pool;
};

end

return { version = "0.2.0"; parts = {}; start = function (_, saved) return start(saved); end };
