-- Stands in for Jitsi's lobby (muc_lobby_rooms) and persistent_lobby: opens one when asked to, and sends everybody
-- without an affiliation there.
local st = require "util.stanza";

local function tell_of_new_form(room)
	room:broadcast_message(st.message({ type = "groupchat", from = room.jid })
		:tag("x", { xmlns = "http://jabber.org/protocol/muc#user" }):tag("status", { code = "104" }));
end

-- The real one leaves it to whoever asked to fire room-metadata-changed.
local function create(event)
	local room = event.room;
	for _, occupant in room:each_occupant() do
		if not room:get_affiliation(occupant.bare_jid) then room:set_affiliation(true, occupant.bare_jid, "member"); end
	end
	room:set_members_only(true);
	room.jitsiMetadata = room.jitsiMetadata or {};
	room.jitsiMetadata.lobbyEnabled = true;
	tell_of_new_form(room);
	room._data.lobbyroom = room.jid:gsub("@.*", "@lobby.localhost");
	room:save(true);
end

module:hook_global("create-lobby-room", create);

module:hook_global("create-persistent-lobby-room", function (event)
	prosody.events.fire_event("create-lobby-room", event);
	event.room._data.persist_lobby = true;
	event.room:set_persistent(true);
end);

-- It leaves members-only as it is.
module:hook_global("destroy-lobby-room", function (event)
	local room = event.room;
	if room.jitsiMetadata then room.jitsiMetadata.lobbyEnabled = false; end
	room._data.lobbyroom = nil;
	tell_of_new_form(room);
end);

-- A moderator's form.
module:hook("muc-config-submitted", function (event)
	local room = event.room;
	if event.fields["muc#roomconfig_membersonly"] then
		room._data.lobbyroom = room._data.lobbyroom or room.jid:gsub("@.*", "@lobby.localhost");
	else
		room._data.lobbyroom = nil;
	end
end);

module:hook("muc-occupant-pre-join", function (event)
	local room, stanza = event.room, event.stanza;
	if not room:get_members_only() or event.occupant.nick:find("/focus$") then return; end
	if room:get_affiliation(stanza.attr.from) then return; end
	event.origin.send(st.error_reply(stanza, "auth", "registration-required", nil, room.jid));
	return true;
end, -4);
