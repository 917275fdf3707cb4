-- Ends meetings that have lasted as long as their config allows, or as the last decision said.
--
-- Counted from the first real participant's join, by the clock on the wall and in the room's own data, so that it
-- goes on over a reload of the module and, for a persistent room, over a restart of Prosody.

local timer = require "util.timer";

local options, safely, people, rooms, decisions, messages, ending; -- handed over by start.lib.lua

-- When the meeting has to end, in seconds of the wall clock, and the limit in minutes if that is why. Without an end: nil.
local function end_of(room)
	local record = rooms.record_of(room);
	local minutes, started_at = record and record.settings.maxDurationMinutes, room._data.muc_webhook_started_at;
	local ends_at = room._data.muc_webhook_ends_at;
	if not started_at then return nil; end
	if minutes and not (ends_at and ends_at < started_at + minutes * 60) then
		return started_at + minutes * 60, minutes;
	end
	return ends_at;
end

local function end_meeting(room, minutes)
	local text = minutes and ("The meeting has reached its limit of %g minutes"):format(minutes)
		or "The time of this meeting is over";
	ending.end_meeting(room, "max-duration", "max-duration", text);
end

local function warn_of_end(room, minutes)
	local text = ("This meeting ends in %g %s."):format(minutes, minutes == 1 and "minute" or "minutes");
	room:broadcast(messages.chat_line(room.jid, text));
	room:broadcast(messages.data(room.jid, nil, {
		type = "MEETING_ENDING"; minutesLeft = minutes; reason = "max-duration";
	}));
end

local start; -- refers to itself through its timer

-- The room may be another object by now, but not another meeting.
local function on_time(room_jid, life)
	life.timer = nil;
	local room = rooms.of(room_jid);
	if not room or room._data.muc_webhook_started_at ~= life.timed_for then return; end
	if not life.is_to_warn then
		local _, minutes = end_of(room);
		safely("Ending the meeting", end_meeting, room, minutes);
		return;
	end
	life.warned = true;
	safely("Warning of the end", warn_of_end, room, options.warning_minutes);
	start(room);
end

-- Or starts again, when the config or the meeting has changed.
function start(room)
	local life, started_at = rooms.life_of(room), room._data.muc_webhook_started_at;
	rooms.stop_timer(life);
	local ends_at = end_of(room);
	life.has_end = ends_at ~= nil;
	if not options.enforce_duration or not ends_at then return; end

	local warning_minutes = options.warning_minutes;
	local left = ends_at - os.time();
	local until_warning = left - warning_minutes * 60;
	life.is_to_warn = not life.warned and warning_minutes > 0 and until_warning > 0;
	life.timed_for = started_at;
	local room_jid = room.jid;
	life.timer = timer.add_task(math.max(0, life.is_to_warn and until_warning or left), function ()
		on_time(room_jid, life);
	end);
end

-- remainingMinutes: the last answer of the meeting service counts. One from the sidecar's memory is older than what the
-- room has heard.
local function take_end(room, decision)
	local data, life = room._data, rooms.life_of(room);
	if not decision.minutes or decision.by == "memory" and data.muc_webhook_ends_at then return false; end
	local ends_at = decision.at + decision.minutes * 60;
	if ends_at > (data.muc_webhook_ends_at or ends_at) then life.warned = nil; end
	data.muc_webhook_ends_at = ends_at;
	return true;
end

local function on_joined(event)
	local room = event.room;
	if people.is_exempt(event.occupant.bare_jid) or rooms.is_healthcheck(room.jid) then return; end
	local begins = not room._data.muc_webhook_started_at;
	if begins then room._data.muc_webhook_started_at = os.time(); end
	if take_end(room, decisions.of(event.stanza)) or begins then start(room); end
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
	decisions, messages, ending = need.decisions, need.messages, need.ending;
	return { start = start; on_joined = on_joined; on_left = on_left };
end

return { version = "0.2.0"; new = new };
