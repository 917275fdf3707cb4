-- Stands in for the part of Jitsi's module of this name that decides who makes polls: it answers as the real one does
-- to a refusal, and says "made" otherwise.
local json = require "util.json";
local st = require "util.stanza";

module:hook("message/host", function (event)
	local stanza, session = event.stanza, event.origin;
	local poll = json.decode(stanza:get_child_text("json-message", "http://jitsi.org/jitmeet") or "{}");
	local muc = prosody.hosts["conference.localhost"].modules.muc;
	local room = muc.get_room_from_jid(session.jitsi_web_query_room.."@conference.localhost");
	local occupant = room and room:get_occupant_by_real_jid(stanza.attr.from);
	if not occupant or poll.command ~= "new-poll" then return; end
	local features, permissions = session.jitsi_meet_context_features, (room.jitsiMetadata or {}).permissions or {};
	local has_feature = features and features["create-polls"] == true; -- a moderator without features has it neither
	if permissions.pollCreationRestricted and not has_feature then
		session.send(st.error_reply(stanza, "cancel", "not-allowed", "Creation of polls not allowed for user"));
	else
		session.send(st.message({ from = module.host, to = stanza.attr.from, id = stanza.attr.id }, "made"));
	end
	return true;
end);
