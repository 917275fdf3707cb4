-- Stands in for Jitsi's module of this name: a room's metadata go to whoever joins, before their own presence, and to
-- all when they change. Moderators may write, unless another module has an opinion.
local filters = require "util.filters";
local jid = require "util.jid";
local json = require "util.json";
local st = require "util.stanza";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";
local rooms_host = module:get_option_string("muc_component");
local users_host = "localhost";

local breakout_host = module:get_option_string("breakout_rooms_component");

local function room_of(room_jid)
	local host = prosody.hosts[jid.host(room_jid)];
	return host and host.modules.muc and host.modules.muc.get_room_from_jid(room_jid);
end

local function send(room, to)
	module:send(st.message({ from = module.host, to = to })
		:tag("json-message", { xmlns = xmlns_jitmeet, room = room.jid })
		:text(json.encode({ type = "room_metadata", metadata = room.jitsiMetadata or {} })):up());
end

local function send_to_all(room)
	for _, occupant in room:each_occupant() do send(room, occupant.jid); end
end

local function watch(name)
	if name ~= rooms_host and name ~= breakout_host then return; end
	local events = prosody.hosts[name].events;
	module:hook_object_event(events, "muc-room-created", function (event)
		event.room.jitsiMetadata = event.room.jitsiMetadata or {};
	end, -1);
	module:hook_object_event(events, "room-metadata-changed", function (event) send_to_all(event.room); end);
end
for name in pairs(prosody.hosts) do watch(name); end
module:hook_global("host-activated", watch);

module:hook("message/host", function (event)
	local stanza = event.stanza;
	local written = stanza:get_child("room_metadata", xmlns_jitmeet);
	local room = written and room_of(written.attr.room);
	local occupant = room and room:get_occupant_by_real_jid(stanza.attr.from);
	if not occupant then return; end
	local change = json.decode(written:get_text());
	local opinion = prosody.hosts[users_host].events.fire_event("jitsi-metadata-allow-moderation", {
		room = room; actor = occupant; key = change.key; data = change.data; session = event.origin;
	});
	if opinion == false or opinion == nil and occupant.role ~= "moderator" then return true; end
	room.jitsiMetadata[change.key] = opinion or change.data;
	send_to_all(room);
	return true;
end);

local function before_own_presence(stanza, session)
	local x = stanza.name == "presence" and stanza:get_child("x", "http://jabber.org/protocol/muc#user");
	local is_own = false;
	for status in x and x:childtags("status") or function () end do is_own = is_own or status.attr.code == "110"; end
	local room = is_own and room_of(jid.bare(stanza.attr.from));
	if room and not (session.rig_has_metadata or {})[room] then
		session.rig_has_metadata = { [room] = true };
		send(room, session.full_jid);
	end
	return stanza;
end

filters.add_filter_hook(function (session)
	filters.add_filter(session, "stanzas/out", before_own_presence, -3);
end);
