-- Stands in for Jitsi's module of this name: a moderator without features gets those that all moderators share, and
-- each moderator is shown the features in the presence that says so. A user whose token has features is not.
local filters = require "util.filters";

local features_of_moderators = {
	recording = true; livestreaming = true; transcription = true; ["create-polls"] = true; ["send-groupchat"] = true;
};

local function is_own_as_moderator(stanza)
	local x = stanza.name == "presence" and stanza:get_child("x", "http://jabber.org/protocol/muc#user");
	local is_own, is_moderator = false, false;
	for child in x and x:childtags() or function () end do
		is_own = is_own or child.name == "status" and child.attr.code == "110";
		is_moderator = is_moderator or child.name == "item" and child.attr.role == "moderator";
	end
	return is_own, is_moderator;
end

local function show_permissions(stanza, session)
	local is_own, is_moderator = is_own_as_moderator(stanza);
	if not is_own or stanza.attr.from:find("/focus$") then return stanza; end
	if not session.force_permissions_update then
		if session.auth_token and session.jitsi_meet_context_features or not is_moderator then return stanza; end
	end
	session.force_permissions_update = false;
	session.jitsi_meet_context_features = session.jitsi_meet_context_features or features_of_moderators;
	stanza:tag("permissions", { xmlns = "http://jitsi.org/jitmeet" });
	for name, value in pairs(session.jitsi_meet_context_features) do
		stanza:tag("p", { name = name, val = tostring(value) }):up();
	end
	return stanza:up();
end

filters.add_filter_hook(function (session)
	filters.add_filter(session, "stanzas/out", show_permissions, -2);
end);
