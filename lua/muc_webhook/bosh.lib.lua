-- What a join sends to a BOSH session leaves in one response.
--
-- mod_bosh collects what is sent while it processes a request. When a join has waited, there is no such request: the
-- first stanza would leave alone in the open response, and the others would wait for the client's next request.

-- Calls f, and sends what it has sent to the session.
local function in_one_response(session, f)
	if session.bosh_processing ~= false then return f(); end -- not a BOSH session, or it collects already
	session.bosh_processing = true;
	local ok, err = pcall(f);
	session.bosh_processing = false;
	if not session.destroyed and session.send_buffer[1] then session.send(""); end
	if not ok then error(err, 0); end
end

local function new()
	return { in_one_response = in_one_response };
end

return { version = "0.2.0"; new = new };
