-- Stands in for the parts of Jitsi's module of this name, for visitor nodes, that make visitors of this Prosody's users,
-- and send their private messages to the main Prosody. Those of the main Prosody come over s2s.
local jid = require "util.jid";

module:hook("muc-occupant-pre-join", function (event)
	local bare_jid = event.occupant.bare_jid;
	if bare_jid ~= "focus@auth.localhost" and prosody.hosts[jid.host(bare_jid)] then event.occupant.role = "visitor"; end
end, 3);

module:hook("muc-private-message", function (event)
	local sender = event.room:get_occupant_by_nick(event.stanza.attr.from);
	if not prosody.hosts[jid.host(sender.bare_jid)] then return; end
	module:log("info", "A private message goes to the main Prosody");
	return false;
end, 100);
