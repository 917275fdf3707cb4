-- What a join sends to a BOSH session leaves in one response.
--
-- mod_bosh collects what is sent while it processes a request. When a join has waited, there is no such request: the
-- first stanza would leave alone in the open response, and the others would wait for the client's next request.

local timer = require "util.timer";

-- Collects what is sent to the session from now on, and sends it when Prosody's main loop has come round.
local function collect(session)
	if session.bosh_processing ~= false then return; end -- not a BOSH session, or it collects already
	session.bosh_processing = true;
	timer.add_task(0, function ()
		session.bosh_processing = false;
		if not session.destroyed and session.send_buffer[1] then session.send(""); end
	end);
end

local function new()
	return { collect = collect };
end

return { version = "0.2.0"; new = new };
