-- One POST over net.http, on a connection of its own: for a meeting service, https, and a sidecar without a link.

local http = require "net.http";
local timer = require "util.timer";

local safely; -- handed over by start.lib.lua

local biggest_answer = 1024 * 1024;

-- Closes the connection of a request, also of one that has none yet: net.http can only be waited for then, and the
-- request would be sent and forgotten. An answer that comes meanwhile finds nobody.
local function abandon(request)
	if request.conn then
		pcall(http.destroy_request, request, true);
	elseif not request.is_over then
		timer.add_task(1, function () abandon(request); end);
	end
end

-- Takes a body of no known length, which Prosody's parser would cut short or let grow.
local function new_sink(received)
	local size = 0;
	received.parts = {};
	return {
		write = function (_, part)
			size = size + #part;
			if size > biggest_answer then
				received.failure = "answer too big";
				return nil;
			end
			table.insert(received.parts, part);
			return true;
		end;
	};
end

-- The body, or nil and why there is none. At the end of the connection the parser takes any part of a chunked body
-- for the whole: it then says that the rest is "".
local function body_of(received, answer, response)
	if received.failure then return nil, received.failure; end
	if received.parts then
		if response.chunked and answer then return nil, "the connection was closed in the middle of the answer"; end
		return table.concat(received.parts);
	end
	if type(answer) ~= "string" then return nil, "no answer"; end
	if #answer > biggest_answer then return nil, "answer too big"; end
	return answer;
end

-- Calls on_end(code, body, headers) once, with code 0 and the reason if there is no answer; not at all if the function
-- that it returns, which hangs up, is called first. It has no time-out. An error thrown in a callback would leak the
-- socket.
local function post(url, body, headers, on_end)
	local received, is_over, request = {}, false, nil;

	local function finish(code, answer, answer_headers)
		if is_over then return; end
		is_over = true;
		safely("Taking in an answer", on_end, code, answer, answer_headers or {});
	end

	local function on_answer(answer, code, response)
		if request then request.is_over = true; end
		if code == 0 then return finish(0, received.failure or answer or "connection failed"); end
		local text, problem = body_of(received, answer, response);
		finish(text and code or 0, text or problem, response.headers);
	end

	local ok, result, reason = pcall(http.request, url, {
		method = "POST"; body = body; headers = headers;
		streaming_handler = function () return new_sink(received); end;
	}, on_answer);
	if not ok or not result then
		finish(0, tostring(ok and reason or result));
		return function () end;
	end
	request, result.buffer_size_limit = result, 2 * biggest_answer; -- of the parser, which many small chunks hold up
	return function ()
		is_over = true;
		abandon(request);
	end
end

local function headers_for(secret, more)
	local headers = { ["Content-Type"] = "application/json", ["Accept"] = "application/json" };
	if secret then headers["X-Webhook-Secret"] = secret; end
	for name, value in pairs(more or {}) do headers[name] = value; end
	return headers;
end

local function new(need)
	safely = need.safely;
	return { headers_for = headers_for; post = post; abandon = abandon };
end

return { version = "0.2.0"; new = new };
