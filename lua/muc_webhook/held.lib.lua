-- The joins that wait for an answer, so that an order can reach them.
--
-- A held join has a ticket. What is written on it counts more than the answer that comes later: the answer was asked for
-- before the order.

local async = require "util.async";
local jid = require "util.jid";
local now = require "util.time".now;

local state, people, bosh; -- handed over by start.lib.lua

local function hold(event, room_jid)
	local ticket = { room_jid = room_jid; event = event; began_at = now() };
	state.held[ticket] = true;
	return ticket;
end

local function nick_of(ticket)
	return jid.resource(ticket.event.stanza.attr.to);
end

-- The bare JID and the identity.
local function person_of(ticket)
	local event = ticket.event;
	return jid.bare(event.stanza.attr.from), people.identity_of(event.origin);
end

local function names_of(ticket)
	return people.names_of(person_of(ticket));
end

local function let_go(ticket)
	state.held[ticket] = nil;
end

-- Ends a wait; the first time counts. The join goes on in here, to its end or to the next wait.
local function wake(waiting)
	local go_on, ticket = waiting.go_on, waiting.ticket;
	if not go_on then return; end
	waiting.go_on, ticket.waiting = nil, nil;
	bosh.in_one_response(ticket.event.origin, go_on);
end

-- Only in an async context: calls begin(waiting, ...), and waits until somebody calls wake(waiting), or an order comes.
-- Gives the table `waiting`, in which there can be an answer.
local function wait(ticket, begin, ...)
	local pause, go_on = async.waiter();
	local waiting = { ticket = ticket; go_on = go_on };
	ticket.waiting = waiting;
	begin(waiting, ...);
	pause();
	return waiting;
end

local function refuse(ticket, reason)
	ticket.refusal = reason;
	if ticket.waiting then wake(ticket.waiting); end
end

local function ask_again(ticket)
	ticket.is_to_be_asked_again = true;
	if ticket.waiting then wake(ticket.waiting); end
end

-- Does this to each held join that fits, and says how many those are.
local function each(fits, change, ...)
	local tickets = {};
	for ticket in pairs(state.held) do
		if fits(ticket) then table.insert(tickets, ticket); end
	end
	for _, ticket in ipairs(tickets) do change(ticket, ...); end
	return #tickets;
end

-- Takes back what lets a stanza pass once more: whoever has it may not have used it up.
local function drop_grants(fits)
	local n = 0;
	for stanza in pairs(state.grants) do
		if fits(jid.bare(stanza.attr.to), jid.bare(stanza.attr.from)) then
			state.grants[stanza] = nil;
			n = n + 1;
		end
	end
	return n;
end

local function new(need)
	state, people, bosh = need.state, need.people, need.bosh;
	return {
		hold = hold; let_go = let_go; nick_of = nick_of; person_of = person_of; names_of = names_of; wait = wait; wake = wake;
		each = each; refuse = refuse; ask_again = ask_again; drop_grants = drop_grants;
	};
end

return { version = "0.2.0"; new = new };
