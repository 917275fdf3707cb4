-- What outlives a reload of the module.
--
-- It is handed from one gate to the next: a join that waits across the reload goes on in the old one's functions, and
-- both have to see the same rooms.

local cache = require "util.cache";

local most_orders = 4096; -- a sidecar repeats an order for some minutes at most

local function initial()
	return {
		records = {}; -- room JID -> the config of the room, see records.lib.lua
		lives = {}; -- room JID -> what happened in it, see rooms.lib.lua
		grants = setmetatable({}, { __mode = "k" }); -- stanzas that were let in and come by once more
		decisions = setmetatable({}, { __mode = "k" }); -- stanza -> the decision that let it in
		detached = {}; -- user and room JID -> ticket of a join that waits outside its session's thread
		held = {}; -- tickets of the joins that wait, see held.lib.lua
		orders = cache.new(most_orders); -- id -> what came of it, see orders.lib.lua
		exchanges = {}; -- questions and events on their way, see webhook.lib.lua
		last_question = 0; -- its number: no two questions of this Prosody have the same
		queue = { by_room = {}; ready = {}; size = 0; in_flight = 0; dropped = 0; paused_until = 0; failures = 0 };
		primary_down_until = 0;
		swept_at = 0;
		pending_joins = 0;
		counts = { allowed = 0; denied = 0; refused = 0; unavailable = 0; exempt = 0 };
	};
end

local function new(saved)
	local state = saved or {};
	for key, value in pairs(initial()) do
		if state[key] == nil then state[key] = value; end
	end
	state.queue.by_room = state.queue.by_room or state.queue.lanes; -- 0.1 calls it so, and its functions may still be sending
	state.stopped = nil;
	return state;
end

return { version = "0.2.0"; new = new };
