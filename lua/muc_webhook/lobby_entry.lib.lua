-- Keeps out of a meeting's lobby who is not let into the meeting.
--
-- Everybody can find the name of a lobby, and moderators see who is in it and get what they write. So it is for those
-- whom the gate has let in, in this meeting. Jitsi's page asks for the main room first, and is sent to the lobby then.
--
--   presence/full on the lobby's component ──> in the meeting, or let in by the gate? ──> mod_muc
--                                                │ no, or denied or kicked since
--                                                └──> error to the user

local configmanager = require "core.configmanager";
local jid = require "util.jid";
local st = require "util.stanza";

local xmlns_muc = "http://jabber.org/protocol/muc";
local text = "You are not let into the meeting that this lobby belongs to";

local people, rooms, put_out, breakout_rooms; -- handed over by start.lib.lua
local components = {}; -- host -> true

-- Noted on the session, by room: the life of the room in which the gate has let it in.
local function on_let_in(event, room_jid)
	local origin = event.origin;
	if origin.type ~= "c2s" or not next(components) then return; end
	origin.muc_webhook_let_in = origin.muc_webhook_let_in or {};
	origin.muc_webhook_let_in[room_jid] = rooms.id_of(rooms.life_of({ jid = room_jid }));
end

local function keep_out(room_jid, bare_jid)
	local user = prosody.bare_sessions[bare_jid];
	for _, session in pairs(user and user.sessions or {}) do
		if session.muc_webhook_let_in then session.muc_webhook_let_in[room_jid] = nil; end
	end
end

-- Of the main room, as Jitsi's module names the lobby after it.
local function main_room_of(lobby_jid)
	local room = rooms.muc() and rooms.of(jid.join(jid.node(lobby_jid), module.host));
	return room and room._data.lobbyroom == lobby_jid and room or nil;
end

-- For a presence that goes out in a main room, or in its lobby.
local function on_presence(event)
	if not breakout_rooms.was_thrown_out(event) then return; end
	local main_room = event.room.jid;
	if components[jid.host(main_room)] then main_room = jid.join(jid.node(main_room), module.host); end
	keep_out(main_room, event.occupant.bare_jid);
end

local function is_inside(host, room_jid, full_jid)
	local muc = prosody.hosts[host].modules.muc;
	local room = muc and muc.get_room_from_jid(room_jid);
	return room and room:get_occupant_jid(full_jid) ~= nil;
end

-- Many users of another server share one session.
local function may_enter(main_room, event)
	if event.origin.type ~= "c2s" or main_room:get_occupant_jid(event.stanza.attr.from) then return true; end
	local life, let_in = rooms.known_life(main_room), event.origin.muc_webhook_let_in;
	return life ~= nil and let_in ~= nil and let_in[main_room.jid] == rooms.id_of(life);
end

-- Returns true if the presence ends here.
local function admit(host, event)
	local origin, stanza = event.origin, event.stanza;
	local from, room_jid = stanza.attr.from, jid.bare(stanza.attr.to);
	if stanza.attr.type ~= nil or not stanza:get_child("x", xmlns_muc) or people.is_exempt(from) then return; end
	local main_room = main_room_of(room_jid);
	if not main_room or is_inside(host, room_jid, from) then return; end
	if not may_enter(main_room, event) then
		module:log("info", "A join into the lobby of %s was refused", main_room.jid);
		origin.send(st.error_reply(stanza, "cancel", "not-allowed", text, room_jid));
		return true;
	end
	return put_out.on_pre_join({ room = main_room, origin = origin, stanza = stanza });
end

local function guard_component(host)
	if not components[host] or not prosody.hosts[host] then return; end
	local host_events = prosody.hosts[host].events;
	for _, event_name in ipairs { "presence/full"; "presence/bare"; "presence/host" } do
		module:hook_object_event(host_events, event_name, function (event)
			return admit(host, event);
		end, -1); -- before mod_muc, at -2
	end
	module:hook_object_event(host_events, "muc-broadcast-presence", on_presence);
end

-- As Jitsi's module finds it, in the section of a virtual host.
local function start()
	for host in pairs(configmanager.getconfig()) do
		local lobby_host = host ~= "*" and configmanager.get(host, "main_muc") == module.host
			and configmanager.get(host, "lobby_muc");
		if lobby_host then components[lobby_host] = true; end
	end
	for host in pairs(components) do guard_component(host); end
	module:hook_global("host-activated", guard_component); -- it may come later
end

local function new(need)
	people, rooms, put_out, breakout_rooms = need.people, need.rooms, need.put_out, need.breakout_rooms;
	return { start = start; on_let_in = on_let_in; on_denied = keep_out; on_presence = on_presence };
end

return { version = "0.2.0"; new = new };
