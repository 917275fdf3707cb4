-- Ends what takes too long, with one timer for all.
--
-- All have the same time, so what began first has to end first.

local monotonic = require "util.time".monotonic;
local timer = require "util.timer";

local queue_mt = {};
queue_mt.__index = queue_mt;

-- What is in front and over goes; what is over behind another one waits for it.
function queue_mt:forget_ended()
	local first, last = self.first, self.last;
	while first <= last and self.list[first].is_over do
		self.list[first], self.times[first] = nil, nil;
		first = first + 1;
	end
	self.first = first;
end

-- Returns the seconds until there is something to do again, or nothing.
function queue_mt:check()
	self:forget_ended();
	while self.first <= self.last and self.times[self.first] <= monotonic() do
		self.on_end(self.list[self.first]);
		self:forget_ended();
	end
	if self.first <= self.last then return math.max(0.001, self.times[self.first] - monotonic()); end
	self.timer = nil;
	return nil;
end

-- `each` has a true `is_over` once it is over.
function queue_mt:add(each)
	self.last = self.last + 1;
	self.list[self.last], self.times[self.last] = each, monotonic() + self.seconds;
	if not self.timer then self.timer = timer.add_task(self.seconds, function () return self:check(); end); end
end

-- Calls on_end(each) for those that are not over after so many seconds; each is over then. The timer is one of util.timer:
-- those made with module:add_timer die with a reload.
local function new_queue(seconds, on_end)
	return setmetatable({ seconds = seconds; on_end = on_end; first = 1; last = 0; list = {}; times = {} }, queue_mt);
end

local function new()
	return { new = new_queue };
end

return { version = "0.2.0"; new = new };
