-- Events on their way to the meeting service.
--
-- A queue per room keeps the order of the room's events; a few queues send side by side. An event stays at the head of
-- its queue until the other side has taken it, with the same id at each try. All queues together are bounded, and the
-- event's number within the life of the room shows what had to be left out.

local now = require "util.time".now;
local timer = require "util.timer";

local state, options, metrics, webhook, answers, store; -- handed over by start.lib.lua

local most_in_flight = 4;
local taken_as_poison = { [400] = true; [409] = true; [410] = true; [413] = true; [422] = true };

local send; -- refers to itself through the answers that it waits for

local function drop_event(room_jid, why)
	local queue = state.queue;
	queue.dropped = queue.dropped + 1;
	metrics.event_was_dropped(1);
	if now() - (queue.complained_at or 0) > 10 then
		queue.complained_at = now();
		module:log("warn", "An event of %s was dropped: %s (%d dropped so far)", room_jid, why, queue.dropped);
	end
end

local function send_later()
	local queue = state.queue;
	if queue.timer then return; end
	queue.timer = timer.add_task(math.max(0, queue.paused_until - now()), function ()
		queue.timer = nil;
		queue.send();
	end);
end

local function stop_timer()
	local queue = state.queue;
	if queue.timer then timer.stop(queue.timer); end
	queue.timer = nil;
end

local function pause()
	local queue = state.queue;
	queue.failures = queue.failures + 1;
	queue.paused_until = now() + math.min(30, 0.25 * 2 ^ queue.failures) * (0.75 + math.random() / 2);
end

-- After a reload this is still the function of the gate that sent the event, maybe to a URL that is not the one any
-- more. What comes next is for the present gate.
local function settle(url, room_queue, item, code, answer)
	local queue = state.queue;
	queue.in_flight = queue.in_flight - 1;
	local poison = taken_as_poison[code] or code == 404 and answers.read_object(answer) ~= nil;
	if code >= 200 and code < 300 or poison then
		if poison then drop_event(room_queue.jid, "it was answered with status "..code); end
		queue.failures = 0;
		queue.size = queue.size - 1;
		table.remove(room_queue, 1);
		metrics.events_are_queued(queue.size);
	else
		module:log("debug", "%s of %s waits: %s", item.endpoint, room_queue.jid, code == 0 and answer or code);
		if url == queue.url then pause(); end
	end
	if room_queue[1] then
		table.insert(queue.ready, room_queue);
	else
		queue.by_room[room_queue.jid] = nil;
	end
	queue.send();
end

function send()
	local queue = state.queue;
	if not options.url or state.stopped then return; end
	if queue.ready[1] and now() < queue.paused_until then return send_later(); end
	while queue.in_flight < most_in_flight and queue.ready[1] and now() >= queue.paused_until do
		local room_queue = table.remove(queue.ready, 1);
		local item = room_queue[1];
		queue.in_flight = queue.in_flight + 1;
		webhook.deliver(item.endpoint, item.id, item.body, function (_, ...)
			settle(options.url, room_queue, item, ...);
		end);
	end
end

-- `item` has an id, an endpoint and a body.
local function add(room_jid, item)
	local queue = state.queue;
	if queue.size >= options.queue_size then
		drop_event(room_jid, "the queue is full");
		return;
	end
	local room_queue = queue.by_room[room_jid];
	if not room_queue then
		room_queue = { jid = room_jid };
		queue.by_room[room_jid] = room_queue;
		table.insert(queue.ready, room_queue);
	end
	table.insert(room_queue, item);
	queue.size = queue.size + 1;
	metrics.events_are_queued(queue.size);
	queue.send();
end

local function save()
	local items = {};
	for _, room_queue in pairs(state.queue.by_room) do
		for _, item in ipairs(room_queue) do
			table.insert(items, { room = room_queue.jid; id = item.id; endpoint = item.endpoint; body = item.body });
		end
	end
	if not items[1] then return; end
	local ok, err = store:set(nil, { items = items });
	if not ok then module:log("error", "%d events could not be kept for later: %s", #items, err); end
end

local function restore()
	local kept = store:get(nil);
	if not kept or type(kept.items) ~= "table" then return; end
	store:set(nil, nil);
	state.queue.restored = #kept.items;
	for _, item in ipairs(kept.items) do
		add(item.room, { id = item.id; endpoint = item.endpoint; body = item.body });
	end
end

-- The other side is there again: nothing waits for the end of a pause.
local function go_on()
	stop_timer();
	state.queue.failures, state.queue.paused_until = 0, 0;
	send();
end

-- What is on its way to a URL that is not the one any more is sent again.
local function resume()
	local queue = state.queue;
	local has_moved = queue.url ~= options.url;
	queue.url = options.url;
	if has_moved then
		queue.failures, queue.paused_until = 0, 0;
		webhook.end_events();
	end
	send();
end

local function new(need)
	state, options, metrics, webhook, answers = need.state, need.options, need.metrics, need.webhook, need.answers;
	store = module:open_store("muc_webhook_queue");
	state.queue.send = send;
	return { add = add; go_on = go_on; resume = resume; save = save; restore = restore; stop_timer = stop_timer };
end

return { version = "0.2.0"; new = new };
