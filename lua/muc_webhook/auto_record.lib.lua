-- Starts the recording that a config wants (autoRecord, with recordingEnabled), without a script in the page.
--
--   a moderator and jicofo are in ──2 s──> asked ──> jicofo says that it records
--                              ^            │
--                              └── longer ──┴ refused: a recording event, FAILED
--
-- Jicofo takes the order from a moderator only, so it is sent in the name of one, and the answer is kept from that
-- moderator's page. A page that obeys START_RECORDING is faster; then there is nothing to do. After somebody has
-- stopped the recording, none is started any more.

local jid = require "util.jid";
local new_uuid = require "util.uuid".generate;
local now = require "util.time".now;
local st = require "util.stanza";
local timer = require "util.timer";

local xmlns_jibri = "http://jitsi.org/protocol/jibri";
local id_prefix = "muc-webhook-"; -- mod_muc gives the requests of users other ids: base64 has no dash

-- Handed over by start.lib.lua.
local state, safely, people, rooms, visitors, recordings, forbidden, data_names;

local waits = { 2, 10, 30, 60, 120 }; -- seconds before each try
local longest_answer = 30; -- seconds

local function wants(room)
	local data = room._data;
	return data[data_names.autoRecord] == true and data[data_names.recordingEnabled] == true and not visitors.is_node();
end

-- What is known of the recording that a room shall have, as long as the meeting lasts:
--   tries, due, timer   how often it was asked for; when the next step is due, and its timer
--   asked               id of the question that jicofo has not answered
--   status, is_running  what jicofo has said last; whether something is recorded or streamed now
--   is_over             whether somebody has stopped it
--   page_asked_at       when a page has asked for a recording
local function order_of(room)
	local life = rooms.life_of(room);
	life.auto_record = life.auto_record or { tries = 0 };
	return life.auto_record;
end

local attempt, give_up_waiting; -- defined below

local function stop_timer(order)
	if order.timer then timer.stop(order.timer); end
	order.timer = nil;
end

local function cancel(order)
	stop_timer(order);
	order.due = nil;
end

local function run_later(room, order, seconds)
	stop_timer(order);
	order.due = now() + seconds;
	local room_jid = room.jid;
	order.timer = timer.add_task(seconds, function ()
		order.timer, order.due = nil, nil;
		local life, now_room = state.lives[room_jid], rooms.of(room_jid);
		if not now_room or not life or life.auto_record ~= order then return; end
		safely("Starting the recording of "..room_jid, order.asked and give_up_waiting or attempt, now_room, order);
	end);
end

local function consider(room, order)
	local wait = waits[order.tries + 1];
	if order.is_over or order.is_running or order.due or not wait then return; end
	run_later(room, order, wait);
end

local function jicofo_in(room)
	local focus = room:get_occupant_by_nick(room.jid.."/focus");
	return focus and recordings.is_jicofo(focus) and focus or nil;
end

local function is_moderator(occupant)
	return occupant.role == "moderator" and not people.is_exempt(occupant.bare_jid);
end

local function moderator_in(room)
	for _, occupant in room:each_occupant() do
		if is_moderator(occupant) then return occupant; end
	end
	return nil;
end

local function ask(room, order, moderator, jicofo)
	order.tries, order.asked = order.tries + 1, id_prefix..new_uuid();
	run_later(room, order, longest_answer);
	room:route_stanza(st.iq({ type = "set", id = order.asked, from = moderator.nick, to = jicofo.jid })
		:tag("jibri", {
			xmlns = xmlns_jibri; action = "start"; recording_mode = "file";
			app_data = '{"file_recording_metadata":{"share":true}}'; -- as Jitsi's page asks for a recording on the server
		}));
end

function attempt(room, order)
	if order.is_over or order.is_running or not wants(room) then return; end
	local since_page = now() - (order.page_asked_at or 0);
	if since_page < longest_answer then return run_later(room, order, longest_answer - since_page); end
	local moderator, jicofo = moderator_in(room), jicofo_in(room);
	if moderator and jicofo then ask(room, order, moderator, jicofo); end -- or else when they come
end

local function on_refused(room, order, reason)
	order.asked = nil;
	cancel(order);
	module:log("warn", "The recording of %s could not be started (try %d of %d): %s", room.jid, order.tries, #waits, reason);
	recordings.failed(room, reason);
	consider(room, order);
end

function give_up_waiting(room, order)
	on_refused(room, order, "timeout");
end

local function take_answer(room, order, stanza)
	local _, condition = stanza:get_error();
	if stanza.attr.type == "error" and condition ~= "unexpected-request" then -- which is: one is running
		return on_refused(room, order, condition);
	end
	order.asked, order.is_running = nil, true;
	cancel(order);
end

local function on_page_asks(event)
	local room = rooms.of(jid.bare(event.stanza.attr.to));
	local occupant = room and wants(room) and room:get_occupant_by_real_jid(event.stanza.attr.from);
	if occupant and is_moderator(occupant) then order_of(room).page_asked_at = now(); end
end

-- Returns true if the stanza is the answer to a question of this module, which nobody else has asked.
local function on_iq(event)
	local stanza = event.stanza;
	local id = stanza.attr.id or "";
	if stanza.attr.type == "set" then
		if forbidden.mode_to_start(stanza) == "file" then on_page_asks(event); end
		return nil;
	end
	if stanza.attr.type == "get" or id:sub(1, #id_prefix) ~= id_prefix then return nil; end
	local life, room = state.lives[jid.bare(stanza.attr.to)], rooms.of(jid.bare(stanza.attr.to));
	local order = life and life.auto_record;
	if room and order and order.asked == id and people.is_exempt(stanza.attr.from) then take_answer(room, order, stanza); end
	return true;
end

-- Jicofo repeats what it has said whenever it says something else. In an empty room it ends the recording itself.
local function take_status(room, order, status)
	local what, mode = (status.attr.status or ""):lower(), (status.attr.recording_mode or ""):lower();
	local seen = ("%s %s"):format(status.attr.session_id, what);
	if order.status == seen then return; end
	order.status, order.is_running = seen, what == "on" or what == "pending";
	if what ~= "off" or mode == "stream" or recordings.failure_in(status) then return; end
	if rooms.real_occupants(room) > 0 then order.is_over = true; end
end

local function on_presence(event)
	local room, occupant = event.room, event.occupant;
	if not wants(room) then return; end
	if recordings.is_jicofo(occupant) and occupant.role then
		local order, status = order_of(room), event.stanza:get_child("jibri-recording-status", xmlns_jibri);
		if status then take_status(room, order, status); end
		if moderator_in(room) then consider(room, order); end
	elseif is_moderator(occupant) then
		consider(room, order_of(room));
	end
end

-- When the config comes, and when the module starts: others may have said something before.
local function on_config(room)
	if not wants(room) then return; end
	local order, jicofo = order_of(room), jicofo_in(room);
	local presence = jicofo and jicofo:get_presence();
	local status = presence and presence:get_child("jibri-recording-status", xmlns_jibri);
	if status then take_status(room, order, status); end
	if order.due and not order.timer then
		run_later(room, order, math.max(0, order.due - now()));
	elseif moderator_in(room) then
		consider(room, order);
	end
end

-- The next gate goes on.
local function stop()
	for _, life in pairs(state.lives) do
		if life.auto_record then stop_timer(life.auto_record); end
	end
end

local function new(need)
	state, safely, people, rooms, visitors = need.state, need.safely, need.people, need.rooms, need.visitors;
	recordings, forbidden, data_names = need.recordings, need.forbidden, need.settings.data_names;
	return { on_iq = on_iq; on_presence = on_presence; on_config = on_config; stop = stop; waits = waits };
end

return { version = "0.2.0"; new = new };
