-- Asks muc_webhook_url, or while that cannot be reached, muc_webhook_fallback_url.

local now = require "util.time".now;

local options, state, metrics, http; -- handed over by start.lib.lua

-- The sidecar answers a join's two questions in one; a meeting service knows only the first.
local direct_endpoints = { ["join"] = "validate-access"; ["join?config=1"] = "validate-access" };

local function names_a_sidecar(headers)
	local caches = headers and headers["cache-status"] or "";
	return (","..caches..","):find(",%s*prosody%-sidecar%s*[;,]") ~= nil;
end

-- While the sidecar cannot be reached, the backend itself is asked, if its address is known. on_answer gets headers
-- with the answers of muc_webhook_url only.
local function ask(endpoint, body, on_answer)
	local deadline = now() + options.timeout;
	local measured = metrics.question_begins();

	local function answered(code, answer, headers)
		if measured then measured(); end
		on_answer(code, answer, headers);
	end

	local function ask_fallback()
		local left = math.max(deadline - now(), 0.1);
		local url = options.fallback_url.."/"..(direct_endpoints[endpoint] or endpoint);
		http.post(state.questions, url, body, http.headers_for(options.fallback_secret), left, function (code, answer)
			answered(code, answer);
		end);
	end

	if options.fallback_url and state.primary_down_until > now() then return ask_fallback(); end
	local url, headers = options.url.."/"..endpoint, http.headers_for(options.secret);
	http.post(state.questions, url, body, headers, options.timeout, function (code, answer, answer_headers)
		if code ~= 0 then state.is_sidecar = names_a_sidecar(answer_headers); end
		if code == 0 and options.fallback_url and answer ~= "module unloaded" then
			state.primary_down_until = now() + 5;
			module:log("warn", "%s cannot be reached (%s), asking the backend itself for a while", options.url, answer);
			if now() < deadline - 0.1 then return ask_fallback(); end
		end
		answered(code, answer, answer_headers);
	end);
end

local function new(need)
	options, state, metrics, http = need.options, need.state, need.metrics, need.http;
	return { ask = ask };
end

return { version = "0.2.0"; new = new };
