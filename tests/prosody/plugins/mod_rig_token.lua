-- What Jitsi's modules leave on a session: mod_auth_token what is in a token, mod_jitsi_session any token that is in
-- the URL, and the room that the URL names. Put there by the client itself:
-- <iq type="set"><token xmlns="urn:rig:token">{"token": "...", "user": {"id": "...", "email": "..."}}</token></iq>
local json = require "util.json";
local st = require "util.stanza";

module:hook("iq-set/self/urn:rig:token:token", function (event)
	local origin, stanza = event.origin, event.stanza;
	local given = json.decode(stanza:get_child_text("token", "urn:rig:token"));
	origin.auth_token = given.token;
	origin.jitsi_meet_context_user = given.user;
	origin.jitsi_meet_context_features = given.features;
	origin.jitsi_web_query_room = given.room;
	origin.jitsi_web_query_prefix = given.tenant ~= json.null and given.tenant or nil;
	origin.send(st.reply(stanza));
	return true;
end);
