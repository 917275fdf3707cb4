-- Stands in for Jitsi's module of this name, on the host of the users: only sessions with the feature, or moderators
-- without features, start recordings.
local jid = require "util.jid";
local st = require "util.stanza";

module:hook("pre-iq/full", function (event)
	local stanza, session = event.stanza, event.origin;
	local jibri = stanza:get_child("jibri", "http://jitsi.org/protocol/jibri");
	if not jibri then return; end
	local muc = prosody.hosts["conference.localhost"].modules.muc;
	local room = muc.get_room_from_jid(jid.bare(stanza.attr.to));
	local occupant = room and room:get_occupant_by_real_jid(stanza.attr.from);
	local feature = jibri.attr.recording_mode == "file" and "recording" or "livestreaming";
	local features = session.jitsi_meet_context_features;
	local is_allowed = occupant and occupant.role == "moderator";
	if features then is_allowed = features[feature] == true or features[feature] == "true"; end
	if is_allowed then return; end
	session.send(st.error_reply(stanza, "auth", "forbidden"));
	return true;
end);
