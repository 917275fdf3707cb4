-- Stands in for Jitsi's rate limiter: what comes too fast is joined later, from a timer, outside any session.
local timer = require "util.timer";

local delay = module:get_option_number("rig_rate_delay", 0.1);

module:hook("muc-occupant-pre-join", function (event)
	local room, stanza = event.room, event.stanza;
	if stanza.rig_delayed then
		stanza.rig_delayed = nil;
		return;
	end
	if not room.rig_rate_seen then -- the first one goes through
		room.rig_rate_seen = true;
		return;
	end
	timer.add_task(delay, function ()
		if not event.origin.conn then return; end
		stanza.rig_delayed = true;
		room:handle_normal_presence(event.origin, stanza);
	end);
	return true;
end, 9);
