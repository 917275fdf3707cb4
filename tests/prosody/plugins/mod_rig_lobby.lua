-- Stands in for Jitsi's lobby: opens one when asked to, and sends everybody without an affiliation there.
local st = require "util.stanza";

module:hook_global("create-lobby-room", function (event)
	local room = event.room;
	room:set_members_only(true);
	room._data.lobbyroom = room.jid:gsub("@.*", "@lobby.localhost");
end);

module:hook("muc-occupant-pre-join", function (event)
	local room, stanza = event.room, event.stanza;
	if not room._data.lobbyroom or room:get_affiliation(stanza.attr.from) then return; end
	event.origin.send(st.error_reply(stanza, "auth", "registration-required", nil, room.jid));
	return true;
end, -4);
