-- Stands in for the part of Jitsi's module of this name with which moderators switch A/V moderation on.
module:hook("message/host", function (event)
	local stanza, session = event.stanza, event.origin;
	local command = stanza:get_child("av_moderation");
	local muc = prosody.hosts["conference.localhost"].modules.muc;
	local room = command and muc.get_room_from_jid(session.jitsi_web_query_room.."@conference.localhost");
	local occupant = room and room:get_occupant_by_real_jid(stanza.attr.from);
	if not occupant or occupant.role ~= "moderator" then return false; end
	local media = command.attr.mediaType;
	room.av_moderation = room.av_moderation or {};
	room.av_moderation[media] = command.attr.enable == "true" and {} or nil;
	room.jitsiMetadata.startMuted = room.jitsiMetadata.startMuted or {};
	room.jitsiMetadata.startMuted[media] = command.attr.enable == "true" or nil;
	return true;
end);
