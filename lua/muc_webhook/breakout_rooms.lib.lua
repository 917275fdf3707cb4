-- Keeps out of a meeting's breakout rooms who is not let into the meeting.
--
-- They are on another component, and everybody in a meeting knows their names. Who was let in needs no second question.
--
--   presence/full on the breakout rooms' component ──> in the meeting now or before? ──> mod_muc
--                                                        │ no, or kept out since
--                                                        └──> error to the user

local configmanager = require "core.configmanager";
local jid = require "util.jid";
local st = require "util.stanza";

local xmlns_muc = "http://jabber.org/protocol/muc";
local text = "You are not in the meeting that this breakout room belongs to";
local departures = { ["301"] = true; ["307"] = true; ["321"] = true }; -- banned, kicked, affiliation lost

local state, people, rooms, who, forbidden, metadata; -- handed over by start.lib.lua
local components = {}; -- host -> true
local main_jids = {}; -- JID of a breakout room -> JID of its main room

-- A meeting's people, by bare JID: true for who was let in, false for who is kept out.
local function people_of(room)
	local life = rooms.life_of(room);
	life.let_in = life.let_in or {};
	return life.let_in;
end

local function note(room, bare_jid, is_let_in)
	if next(components) then people_of(room)[bare_jid] = is_let_in; end
end

local function on_joined(event)
	if not next(components) then return; end
	local bare_jid = event.occupant.bare_jid;
	if not people.is_exempt(bare_jid) then note(event.room, bare_jid, true); end
end

-- Runs for each presence that goes out, so it looks before it works.
local function was_thrown_out(event)
	if event.occupant.role then return false; end
	for _, child in ipairs(event.x.tags) do
		if child.name == "status" and departures[child.attr.code] then return true; end
	end
	return false;
end

local function on_presence(event)
	if was_thrown_out(event) then note(event.room, event.occupant.bare_jid, false); end
end

local function on_denied(room_jid, bare_jid)
	local room = state.lives[room_jid] and rooms.of(room_jid);
	if room then note(room, bare_jid, false); end
end

-- Keeps out who is let in so far and fits.
local function keep_out(room, fits)
	local kept_out = {};
	for bare_jid, is_let_in in pairs(people_of(room)) do
		if is_let_in and fits(bare_jid) then table.insert(kept_out, bare_jid); end
	end
	for _, bare_jid in ipairs(kept_out) do note(room, bare_jid, false); end
end

local function has_breakout_room(main_room, room_jid)
	local list = main_room and main_room._data.breakout_rooms;
	return list and list[room_jid] ~= nil;
end

-- Also of main rooms that are not in memory now, as after a reload of mod_muc.
local function find_main_room(room_jid)
	for main_room in rooms.muc().live_rooms() do
		if has_breakout_room(main_room, room_jid) then return main_room; end
	end
	for main_jid, life in pairs(state.lives) do
		local main_room = life.let_in and rooms.of(main_jid);
		if has_breakout_room(main_room, room_jid) then return main_room; end
	end
	return nil; -- of another main component, or of none: Jitsi's module decides
end

local function main_room_of(room_jid)
	if not rooms.muc() then return nil; end
	local main_room = main_jids[room_jid] and rooms.of(main_jids[room_jid]);
	if not has_breakout_room(main_room, room_jid) then main_room = find_main_room(room_jid); end
	main_jids[room_jid] = main_room and main_room.jid;
	return main_room;
end

local function is_inside(host, room_jid, full_jid)
	local muc = prosody.hosts[host].modules.muc;
	local room = muc and muc.get_room_from_jid(room_jid);
	return room and room:get_occupant_jid(full_jid) ~= nil;
end

local function may_enter(main_room, event)
	local from = event.stanza.attr.from;
	local let_in = people_of(main_room)[jid.bare(from)];
	if let_in ~= nil then return let_in; end
	if main_room:get_occupant_jid(from) then return true; end
	-- Jitsi's module keeps on the session where it has been, which may have been an earlier meeting of this name.
	return rooms.life_of(main_room).is_from_before and event.origin.jitsi_breakout_main_jid == main_room.jid;
end

-- When the gate starts in the middle of meetings, without what an earlier one knew.
local function adopt_rooms_from_before()
	if not next(components) then return; end
	for room in rooms.muc().live_rooms() do rooms.life_of(room).is_from_before = true; end
end

-- Returns true if the presence ends here.
local function admit(host, event)
	local stanza = event.stanza;
	local from, room_jid = stanza.attr.from, jid.bare(stanza.attr.to);
	if stanza.attr.type ~= nil or not stanza:get_child("x", xmlns_muc) or people.is_exempt(from) then return; end
	if is_inside(host, room_jid, from) then return; end
	local main_room = main_room_of(room_jid);
	if not main_room or may_enter(main_room, event) then return; end
	module:log("info", "A join into the breakout room %s was refused", room_jid);
	event.origin.send(st.error_reply(stanza, "cancel", "not-allowed", text, room_jid));
	return true;
end

-- A kick out of a breakout room is one out of the meeting.
local function on_presence_in_breakout_room(event)
	local main_room = was_thrown_out(event) and main_room_of(event.room.jid);
	if main_room then note(main_room, event.occupant.bare_jid, false); end
end

local function in_meeting(handler)
	return function (event)
		local main_room = rooms.muc() and main_room_of(event.room.jid);
		if main_room then handler(event, main_room); end
	end;
end

local function guard_component(host)
	if not components[host] or not prosody.hosts[host] then return; end
	for _, event_name in ipairs { "presence/full"; "presence/bare"; "presence/host" } do
		module:hook_object_event(prosody.hosts[host].events, event_name, function (event)
			return admit(host, event);
		end, -1); -- before mod_muc, at -2
	end
	local host_events = prosody.hosts[host].events;
	module:hook_object_event(host_events, "muc-broadcast-presence", on_presence_in_breakout_room);
	module:hook_object_event(host_events, "muc-occupant-joined", in_meeting(who.on_joined));
	module:hook_object_event(host_events, "muc-occupant-left", in_meeting(who.on_left));
	for _, hook in ipairs(forbidden.hooks(main_room_of)) do
		local event_name, priority, handler = table.unpack(hook);
		module:hook_object_event(host_events, event_name, handler, priority);
	end
	module:hook_object_event(host_events, "muc-room-created", function (event)
		metadata.on_breakout_room(event.room);
	end, -2); -- Jitsi's room_metadata is at -1
end

-- As Jitsi's module finds it, in the section of a virtual host.
local function start()
	for host in pairs(configmanager.getconfig()) do
		if host ~= "*" and configmanager.get(host, "main_muc") == module.host then
			components[configmanager.get(host, "breakout_rooms_muc") or "breakout."..host] = true;
		end
	end
	for host in pairs(components) do guard_component(host); end
	module:hook_global("host-activated", guard_component); -- it may come later
end

local function new(need)
	state, people, rooms, who = need.state, need.people, need.rooms, need.who;
	forbidden, metadata = need.forbidden, need.metadata;
	return {
		main_room_of = main_room_of; start = start; adopt_rooms_from_before = adopt_rooms_from_before;
		on_joined = on_joined; on_presence = on_presence;
		on_denied = on_denied; keep_out = keep_out; was_thrown_out = was_thrown_out;
	};
end

return { version = "0.2.0"; new = new };
