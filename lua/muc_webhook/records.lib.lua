-- A room's config, asked for once in the room's life.
--
-- A record is kept by the room's JID and not in the room, because it is there before the room is: from the first
-- allowed join, through mod_muc's making of the room, until the room is destroyed.
--
--   pending ──> ready      settings are known; applied once the room is there
--          ├──> refused    the meeting service wants no such room; forgotten, the next join asks again
--          └──> failed     nobody could say; forgotten likewise (or, with fail_open, ready without settings)

local jid = require "util.jid";
local json = require "util.json";
local now = require "util.time".now;
local st = require "util.stanza";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";

-- Handed over by start.lib.lua.
local state, options, safely, people, rooms, held, webhook, config, setup, metadata, locks, members_only, on_config;

local messages = setmetatable({}, { __mode = "k" }); -- settings for the frontend -> ROOM_CONFIG without addresses

-- ROOM_CONFIG for one session, or without `to` for all. Prosody checks the names and the text of a new stanza, which
-- takes longer than to copy one.
local function message_to(record, to)
	local frontend = record.frontend;
	messages[frontend] = messages[frontend] or st.message({ type = "groupchat" })
		:tag("json-message", { xmlns = xmlns_jitmeet }):text(record.payload):up();
	local message = st.clone(messages[frontend]);
	message.attr.from, message.attr.to = record.jid, to;
	return message;
end

local no_settings = {};
local no_config = { settings = no_settings; frontend = no_settings }; -- nobody changes it

-- The config that a room has got already, in its life. What its moderators have changed since is theirs.
local function applied_config(room)
	local text = room._data.muc_webhook_config;
	return type(text) == "string" and config.read(text) or no_config;
end

-- Once in the life of a room, which may be of several objects.
local function apply(record, room, relaxes)
	record.room = room;
	if record.settings then safely("Writing the metadata", metadata.write, room, record.frontend); end
	if record.settings and (room._data.muc_webhook_config ~= record.text or not locks.is_watched(room)) then
		safely("Applying the config", setup.apply, room, record, applied_config(room), relaxes);
	end
	if record.state == "ready" then members_only.lift(room, record.settings); end
end

-- With `relaxes`, also what a config has locked before is opened that this one does not lock any more.
local function take(record, new_config, relaxes)
	config.remember(record.jid, new_config);
	record.state, record.text, record.degraded = "ready", new_config.text, nil;
	record.settings, record.frontend = new_config.settings, new_config.frontend;
	record.payload = new_config.payload;
	if new_config.dropped[1] then
		table.sort(new_config.dropped);
		local names = table.concat(new_config.dropped, ", ");
		module:log("warn", "Settings of %s with a wrong type were dropped: %s", record.jid, names);
	end
	local room = state.records[record.jid] == record and rooms.of(record.jid);
	if not room then return; end
	-- Made before the answer came: by somebody who was not asked for, such as jicofo.
	local before = applied_config(room).settings;
	apply(record, room, relaxes);
	setup.finish(room, record.settings, before, relaxes);
	if room:has_occupant() then room:broadcast(message_to(record)); end
	on_config(room);
end

-- What a persistent room brought through a restart is better than nothing.
local function stored_config(room_jid)
	local room = rooms.of(room_jid);
	local text = room and room._data.muc_webhook_config;
	return type(text) == "string" and config.read(text) or nil;
end

local function settle(record, outcome, detail, relaxes)
	if record.is_given and outcome ~= "ready" then return; end
	local current = state.records[record.jid] == record;
	local stored = outcome == "failed" and current and stored_config(record.jid);
	if outcome == "ready" then
		safely("Taking in the config", take, record, detail, relaxes);
	elseif outcome == "refused" then
		module:log("info", "Room %s is refused: %s", record.jid, detail);
		record.state, record.reason = "refused", detail;
	elseif stored then
		module:log("warn", "No config for %s (%s), it keeps the one it had", record.jid, detail);
		safely("Taking in the config", take, record, stored);
	else
		module:log("warn", "No config for %s: %s", record.jid, detail);
		record.state, record.degraded = options.fail_open and "ready" or "failed", options.fail_open or nil;
		local room = record.degraded and current and rooms.of(record.jid);
		if room then apply(record, room); end
	end
	if current and (record.state == "failed" or record.state == "refused") then
		state.records[record.jid] = nil;
	end
	local waiters = record.waiters;
	if not waiters then return; end
	record.waiters = nil;
	for _, waiting in ipairs(waiters) do safely("A join into "..record.jid, held.wake, waiting); end
end

-- Calls on_answer(outcome, detail, is_old) with what config.read_answer says.
local function ask(record, on_answer)
	record.asked_at = now();
	local body = {
		roomName = jid.node(record.jid) or record.jid; roomJid = record.jid; timestamp = os.time();
		creator = record.creator;
	};
	webhook.ask("room-created", json.encode(body), function (_, code, answer, is_old)
		local outcome, detail = config.read_answer(record.jid, code, answer);
		on_answer(outcome, detail, is_old);
	end);
end

local function fetch(record)
	ask(record, function (outcome, detail) settle(record, outcome, detail); end);
end

-- What comes in for this record later changes no room. The joins that wait for it are woken by whoever drops it.
local function drop(room_jid)
	state.records[room_jid] = nil;
end

-- Records whose room was never made, or went without an event.
local function forget_leftovers()
	if now() - state.swept_at < 60 then return; end
	state.swept_at = now();
	for room_jid, record in pairs(state.records) do
		if record.state ~= "pending" and now() - record.asked_at > 60 and not rooms.of(room_jid) then
			state.records[room_jid] = nil;
		end
	end
	for room_jid, life in pairs(state.lives) do
		if not life.timer and not state.records[room_jid] and not rooms.of(room_jid) then state.lives[room_jid] = nil; end
	end
end

-- The record of a room if its config need not be asked for: a room that was never made may be another one by now.
local function known(room_jid)
	local record = state.records[room_jid];
	if record and record.state ~= "pending" and now() - record.asked_at > 60 and not rooms.of(room_jid) then
		state.records[room_jid] = nil;
		return nil;
	end
	return record;
end

-- The record of a room whose config is asked for from now on.
local function begin(room_jid, room, creator)
	forget_leftovers();
	local record = { jid = room_jid; state = "pending"; room = room; creator = creator };
	record.began_at = now();
	record.asked_at = record.began_at;
	state.records[room_jid] = record;
	return record;
end

local function wait_for(waiting, record)
	record.waiters = record.waiters or {};
	table.insert(record.waiters, waiting);
end

-- Only in an async context: waits until it is known how the room shall be, or until an order comes.
local function await(room_jid, creator, ticket)
	local record = state.records[room_jid];
	if not record then
		record = begin(room_jid, rooms.of(room_jid), creator);
		fetch(record);
	end
	if record.state == "pending" then
		held.wait(ticket, wait_for, record);
	elseif record.degraded and now() - record.asked_at > 10 then
		fetch(record); -- in the background: the meeting service may be back
	end
	return record;
end

-- A decision has brought a config along: it is the room's, if the room has none yet. Returns the room's record, if there
-- is one now.
local function offer(room_jid, creator, text)
	local record = known(room_jid);
	if record and record.state == "ready" and not record.degraded then return record; end
	local outcome, given = config.read_answer(room_jid, 200, text);
	if outcome ~= "ready" then return record; end -- and it is asked for
	record = record or begin(room_jid, rooms.of(room_jid), creator);
	settle(record, outcome, given);
	record.is_given = record.state == "ready";
	return record;
end

-- After mod_muc's defaults and the creator's wishes, and before the room is tracked.
local function on_pre_create(event)
	local room, creator = event.room, event.stanza.attr.from;
	local record = state.records[room.jid];
	if record then
		apply(record, room);
	elseif not options.are_wrong and not (rooms.is_healthcheck(room.jid) and people.is_exempt(creator)) then
		fetch(begin(room.jid, room, jid.bare(creator)));
	end
end

local function on_tracked(event)
	local record = rooms.record_of(event.room);
	if record then setup.finish(event.room, record.settings, no_settings); end
end

-- The same room, as another object: it was reloaded with mod_muc, or had left the room cache.
local function on_restored(event)
	local room = event.room;
	local record = state.records[room.jid];
	if record then record.room = room; end
	on_config(room);
end

-- Rooms with a limit must be in memory, for it to be kept.
local function rearm()
	for room_jid, record in pairs(state.records) do
		local settings, life = record.settings, state.lives[room_jid];
		local has_end = settings and (settings.maxDurationMinutes or life and life.has_end);
		local room = has_end and rooms.of(room_jid);
		if room then safely("Visiting "..room_jid, on_config, room); end
	end
end

local function on_destroyed(event)
	local room = event.room;
	local record = state.records[room.jid];
	if record and (record.room == nil or record.room == room) then state.records[room.jid] = nil; end
end

local function new(need)
	state, options, safely, people, rooms = need.state, need.options, need.safely, need.people, need.rooms;
	webhook, config, setup, on_config = need.webhook, need.config, need.setup, need.on_config;
	metadata, held, locks, members_only = need.metadata, need.held, need.locks, need.members_only;
	return {
		known = known; applied_config = applied_config; begin = begin; ask = ask; fetch = fetch; take = take; drop = drop;
		settle = settle; await = await; offer = offer; apply = apply; message_to = message_to;
		on_pre_create = on_pre_create; on_tracked = on_tracked; on_restored = on_restored; on_destroyed = on_destroyed;
		rearm = rearm;
	};
end

return { version = "0.2.0"; new = new };
