-- Stands in for Jitsi's module of this name: with groupChatRestricted in the metadata, only sessions with the feature
-- write in the chat.
local jid = require "util.jid";
local st = require "util.stanza";

module:hook("message/bare", function (event)
	local stanza, session = event.stanza, event.origin;
	local room = module:depends("muc").get_room_from_jid(jid.bare(stanza.attr.to));
	local permissions = room and room.jitsiMetadata and room.jitsiMetadata.permissions;
	if not stanza:get_child("body") or not permissions or not permissions.groupChatRestricted then return; end
	if (session.jitsi_meet_context_features or {})["send-groupchat"] == true then return; end
	module:send(st.error_reply(stanza, "cancel", "not-allowed", "by Jitsi's module"));
	return true;
end);
