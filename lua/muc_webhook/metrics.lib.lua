-- What Prosody's statistics and the shell are shown of joins and events.

local measure, state;

local function count_join(outcome)
	state.counts[outcome] = state.counts[outcome] + 1;
	measure[outcome](1);
end

local function add_pending_joins(n)
	state.pending_joins = state.pending_joins + n;
	measure.pending(state.pending_joins);
end

local function new(need)
	state = need.state;
	measure = {
		allowed = module:measure("joins_allowed", "counter");
		denied = module:measure("joins_denied", "counter");
		refused = module:measure("joins_refused_by_config", "counter");
		unavailable = module:measure("joins_without_decision", "counter");
		exempt = module:measure("joins_exempt", "counter");
		pending = module:measure("joins_pending", "amount");
	};
	return {
		count_join = count_join;
		add_pending_joins = add_pending_joins;
		event_was_dropped = module:measure("events_dropped", "counter");
		events_are_queued = module:measure("events_queued", "amount");
		link_is_up = module:measure("link_up", "amount");
		link_was_lost = module:measure("link_losses", "counter");
		link_ignored = module:measure("link_messages_ignored", "counter");
		question_begins = module:measure("request", "times");
	};
end

return { version = "0.2.0"; new = new };
