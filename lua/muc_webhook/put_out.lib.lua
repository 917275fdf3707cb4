-- Who was put out of a meeting by an order, until the gate lets them in again.
--
-- Jitsi's modules keep joins in queues of their own (until jicofo is there, or because there are too many), and send them
-- straight to the room later. The gate has let them in before the order, and does not see them again.

local cache = require "util.cache";
local jid = require "util.jid";
local st = require "util.stanza";

local most_names = 1000; -- in one meeting; those put out last

local state, people, rooms, metrics; -- handed over by start.lib.lua

-- `meant` is a set of names, see people.lib.lua.
local function note(room, meant, reason)
	local life = rooms.life_of(room);
	life.put_out = life.put_out or cache.new(most_names);
	for name in pairs(meant) do life.put_out:set(name, reason); end
end

local function put_out_of(room_jid)
	local life = state.lives[room_jid];
	return life and life.put_out;
end

local function names_of(event)
	return people.names_of(jid.bare(event.stanza.attr.from), people.identity_of(event.origin));
end

local function on_let_in(event, room_jid)
	local put_out = put_out_of(room_jid);
	if not put_out then return; end
	for _, name in ipairs(names_of(event)) do put_out:set(name, nil); end
end

local function on_pre_join(event)
	local room, stanza = event.room, event.stanza;
	local put_out = put_out_of(room.jid);
	if not put_out or people.is_exempt(stanza.attr.from) then return; end
	for _, name in ipairs(names_of(event)) do
		local reason = put_out:get(name);
		if reason then
			metrics.count_join("denied");
			event.origin.send(st.error_reply(stanza, "cancel", "not-allowed", reason, room.jid));
			return true;
		end
	end
end

local function new(need)
	state, people, rooms, metrics = need.state, need.people, need.rooms, need.metrics;
	return { note = note; on_let_in = on_let_in; on_pre_join = on_pre_join };
end

return { version = "0.2.0"; new = new };
