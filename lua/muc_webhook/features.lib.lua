-- What the users of a room may do by Jitsi's own rules: the features of their sessions.
--
-- Jitsi's modules allow what is true in them, or anything to a moderator without features. mod_jitsi_permissions gives
-- them to moderators, and shows them to the page, in the presence with which it says so. Here, what the room's config
-- forbids becomes false; nothing becomes true.

local filters = require "util.filters";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";
local after_jitsi_permissions = -2.5; -- which is at -2

local feature_of = {
	recordingEnabled = "recording"; liveStreamingEnabled = "livestreaming"; chatEnabled = "send-groupchat";
	pollsEnabled = "create-polls"; closedCaptionsEnabled = "transcription";
};

local forbidden; -- handed over by start.lib.lua

local function denied_in(room)
	local denied;
	for setting, feature in pairs(feature_of) do
		if forbidden.forbids(room, setting) then
			denied = denied or {};
			denied[feature] = true;
		end
	end
	return denied;
end

-- On a copy: many sessions share one table. Returns true if something is false now that was not before.
local function restrict(session)
	local features, own = session.jitsi_meet_context_features, session.muc_webhook_features;
	if type(features) ~= "table" or own and own.restricted == features then return false; end
	local restricted, has_changed = {}, false;
	for feature, value in pairs(features) do restricted[feature] = value; end
	for feature in pairs(own.denied) do
		if restricted[feature] == true or restricted[feature] == "true" then has_changed = true; end
		restricted[feature] = false;
	end
	own.original, own.restricted = features, restricted;
	session.jitsi_meet_context_features = restricted;
	return has_changed;
end

-- When a moderator gets the features.
local function on_presence_to(stanza, session)
	local own = session.muc_webhook_features;
	local permissions = own and own.denied and stanza.name == "presence" and stanza:get_child("permissions", xmlns_jitmeet);
	if not permissions then return stanza; end
	restrict(session);
	for permission in permissions:childtags("p") do
		if own.denied[permission.attr.name] then permission.attr.val = "false"; end
	end
	return stanza;
end

-- A session is in one meeting at a time. Its breakout rooms count as this one.
local function enter(session, room)
	local own, denied = session.muc_webhook_features, denied_in(room);
	if not own and not denied then return; end
	if not own then
		own = {};
		session.muc_webhook_features = own;
		filters.add_filter(session, "stanzas/out", on_presence_to, after_jitsi_permissions);
	end
	if own.restricted and own.restricted == session.jitsi_meet_context_features then
		session.jitsi_meet_context_features = own.original; -- of another room
	end
	own.denied, own.original, own.restricted = denied, nil, nil;
	-- The page of a user whose token has features reads them there, unless Jitsi's module shows others.
	if denied and restrict(session) then session.force_permissions_update = true; end
end

local function on_pre_join(event)
	if event.origin.type == "c2s" then enter(event.origin, event.room); end
end

-- Who is in already when the config comes.
local function on_config(room)
	if not denied_in(room) then return; end
	for _, occupant in room:each_occupant() do
		for full_jid in occupant:each_session() do
			local session = prosody.full_sessions[full_jid];
			if session then enter(session, room); end
		end
	end
end

local function new(need)
	forbidden = need.forbidden;
	return { on_pre_join = on_pre_join; on_config = on_config };
end

return { version = "0.2.0"; new = new };
