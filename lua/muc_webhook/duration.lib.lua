-- Ends meetings that have lasted as long as their config allows.
--
-- Counted from the first real participant's join, by the clock on the wall and in the room's own data, so that it
-- goes on over a reload of the module and, for a persistent room, over a restart of Prosody.

local timer = require "util.timer";

local options, safely, people, rooms, messages, ending; -- handed over by start.lib.lua

local function end_meeting(room, minutes)
	ending.end_meeting(room, "max-duration", "max-duration", ("The meeting has reached its limit of %g minutes"):format(minutes));
end

local function warn_of_end(room, minutes)
	local text = ("This meeting ends in %g %s."):format(minutes, minutes == 1 and "minute" or "minutes");
	room:broadcast(messages.chat_line(room.jid, text));
	room:broadcast(messages.data(room.jid, nil, {
		type = "MEETING_ENDING"; minutesLeft = minutes; reason = "max-duration";
	}));
end

-- Or starts again, when the config or the meeting has changed.
local function start(room)
	local record, life = rooms.record_of(room), rooms.life_of(room);
	rooms.stop_timer(life);
	local minutes = record and record.settings.maxDurationMinutes;
	local started_at = room._data.muc_webhook_started_at;
	if not options.enforce_duration or not minutes or not started_at then return; end

	local warning_minutes = options.warning_minutes;
	local left = started_at + minutes * 60 - os.time();
	local until_warning = left - warning_minutes * 60;
	local warns = not life.warned and warning_minutes > 0 and until_warning > 0;
	local room_jid = room.jid;
	life.timer = timer.add_task(math.max(0, warns and until_warning or left), function ()
		life.timer = nil;
		local now_room = rooms.of(room_jid); -- which may be another object by now, but not another meeting
		if not now_room or now_room._data.muc_webhook_started_at ~= started_at then return; end
		if not warns then
			safely("Ending the meeting in "..room_jid, end_meeting, now_room, minutes);
			return;
		end
		life.warned = true;
		safely("Warning of the end in "..room_jid, warn_of_end, now_room, warning_minutes);
		start(now_room);
	end);
end

local function on_joined(event)
	local room = event.room;
	if room._data.muc_webhook_started_at or people.is_exempt(event.occupant.bare_jid) then return; end
	if rooms.is_healthcheck(room.jid) then return; end
	room._data.muc_webhook_started_at = os.time();
	start(room);
end

local function on_left(event)
	local room = event.room;
	if room.destroying or not room._data.muc_webhook_started_at or not room:get_persistent() then return; end
	if rooms.is_in_breakout(room) or rooms.real_occupants(room) > 0 then return; end
	ending.begin_anew(room);
	start(room);
end

local function new(need)
	options, safely, people, rooms = need.options, need.safely, need.people, need.rooms;
	messages, ending = need.messages, need.ending;
	return { start = start; on_joined = on_joined; on_left = on_left };
end

return { version = "0.2.0"; new = new };
