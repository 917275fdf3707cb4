-- Stands in for Jitsi's queue of those who come before jicofo: until "focus" is in, everybody else is halted in
-- pre-join and joined later, from within jicofo's own join.
local new_uuid = require "util.uuid".generate;

module:hook("muc-room-created", function (event)
	event.room._data.meetingId = new_uuid();
end);

module:hook("muc-occupant-pre-join", function (event)
	local room = event.room;
	if room._data.jicofo_lock == false then return; end
	if event.occupant.nick:find("/focus$") then
		room._data.jicofo_lock = false;
		local waiting = room.rig_waiting or {};
		room.rig_waiting = nil;
		for _, early in ipairs(waiting) do
			if early.origin.conn then room:handle_normal_presence(early.origin, early.stanza); end
		end
		return;
	end
	room.rig_waiting = room.rig_waiting or {};
	table.insert(room.rig_waiting, event);
	return true;
end, 8);
