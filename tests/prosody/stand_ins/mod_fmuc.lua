-- Stands in for the part of Jitsi's module of this name, for visitor nodes, that makes visitors of this Prosody's users.
-- Those of the main Prosody come over s2s.
local jid = require "util.jid";

module:hook("muc-occupant-pre-join", function (event)
	local bare_jid = event.occupant.bare_jid;
	if bare_jid ~= "focus@auth.localhost" and prosody.hosts[jid.host(bare_jid)] then event.occupant.role = "visitor"; end
end, 3);
