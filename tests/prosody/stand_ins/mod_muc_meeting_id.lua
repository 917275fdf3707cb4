-- Stands in for the part of Jitsi's module of this name that keeps moderators from making the room moderated.
module:hook("muc-config-submitted/muc#roomconfig_moderatedroom", function ()
	return true;
end, 99);
