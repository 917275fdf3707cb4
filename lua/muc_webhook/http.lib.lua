-- One POST, with an end in time: sends it, and says what came of it.

local http = require "net.http";
local timer = require "util.timer";

local safely, connections, client; -- handed over by start.lib.lua

-- https is left to net.http. Prosody 13 can keep a connection for the next request there, 0.12 takes no notice of
-- the wish. An error thrown in a callback leaks the socket.
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
			elseif #answer > connections.biggest_answer then
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

local function headers_for(secret, more)
	local headers = { ["Content-Type"] = "application/json", ["Accept"] = "application/json" };
	if secret then headers["X-Webhook-Secret"] = secret; end
	for name, value in pairs(more or {}) do headers[name] = value; end
	return headers;
end

-- Calls on_answer(code, body, headers) once, never later than after `timeout` seconds; code 0 says that there was no
-- answer, and body why. Until then `under_way` holds a function that ends the request early. The timer is one of
-- util.timer, since those made with module:add_timer die with a reload and the join would hang.
local function post(under_way, url, body, headers, timeout, on_answer)
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
	local send = url:find("^https:") and send_with_net_http or connections.send;
	local ok, result = pcall(send, url, body, headers, finish);
	if not ok then return give_up(tostring(result)); end
	hang_up = result;
end

-- Ends requests early: whoever waits for one hears now that there is no answer, instead of never.
local function end_all(under_way)
	local ends = {};
	for _, give_up in pairs(under_way) do table.insert(ends, give_up); end
	for _, give_up in ipairs(ends) do give_up("module unloaded"); end
end

local function new(need)
	safely, connections = need.safely, need.connections;
	client = http.default.new({ connection_pooling = true });
	return { headers_for = headers_for; post = post; end_all = end_all };
end

return { version = "0.2.0"; new = new };
