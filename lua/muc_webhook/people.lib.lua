-- Who somebody is: what the server vouches for, and who joins without being asked for.

local jid = require "util.jid";

local xmlns_nick = "http://jabber.org/protocol/nick";

local visitors; -- handed over by start.lib.lua
local admins, exempt, bot_prefixes; -- made by `new`

-- The lists are other modules', and it is for those to complain of a wrong member. Here it must not stop anything.
local function texts_of_option(name, default)
	local list = {};
	for member in module:get_option_inherited_set(name, default or {}) do
		if type(member) == "string" then table.insert(list, member); end
	end
	return list;
end

local function union_of_options(names)
	local union = {};
	for _, name in ipairs(names) do
		for _, member in ipairs(texts_of_option(name)) do union[jid.prep(member) or member] = true; end
	end
	return union;
end

-- By the sender's JID only, which the server vouches for. A nick such as "focus", or a child element such as
-- jigasi's <initiator>, can be written by any client.
local function is_exempt(full_jid)
	local node, host = jid.split(full_jid);
	local bare = node and node.."@"..host or host;
	if admins[bare] or exempt[bare] or exempt[host] or visitors.is_mirrored(host) then return true; end
	if prosody.hosts[host] then -- a prefix names no whole host, and anybody can have a server of such a name
		for _, list in ipairs(bot_prefixes) do
			for _, prefix in ipairs(list) do
				if bare:sub(1, #prefix) == prefix then return true; end
			end
		end
	end
	return false;
end

local guest_providers = { ["anonymous"] = true; ["jitsi-anonymous"] = true; ["token"] = true };

local function identity_of(origin)
	local user = origin and origin.jitsi_meet_context_user;
	if type(user) ~= "table" then user = {}; end
	local id = user.id;
	if type(id) == "number" then id = ("%.14g"):format(id); end
	return {
		id = type(id) == "string" and id ~= "" and id or nil;
		email = type(user.email) == "string" and user.email ~= "" and user.email or nil;
		name = type(user.name) == "string" and user.name ~= "" and user.name or nil;
	};
end

local function is_guest(origin, identity)
	if origin.auth_token or identity.id or identity.email then return false; end
	local host = prosody.hosts[origin.host];
	return host ~= nil and host.users ~= nil and guest_providers[host.users.name] == true;
end

local function display_name(stanza, identity)
	local nick = stanza and stanza:get_child_text("nick", xmlns_nick);
	if nick and nick ~= "" then return nick; end
	return identity.name or (stanza and jid.resource(stanza.attr.to)) or nil;
end

-- By the id or e-mail address in the token, which a config names as well as JIDs.
local function is_listed(moderators, identity)
	for _, moderator in ipairs(moderators or {}) do
		if moderator == identity.id or identity.email and moderator:lower() == identity.email:lower() then return true; end
	end
	return false;
end

local function new(need)
	visitors = need.visitors;
	admins = union_of_options { "admins" };
	exempt = union_of_options {
		"muc_access_whitelist"; "muc_lobby_whitelist"; "muc_password_whitelist"; "token_verification_allowlist";
	};
	for member in pairs(need.options.exempt_jids) do exempt[jid.prep(member) or member] = true; end
	bot_prefixes = {
		texts_of_option("recorder_prefixes", { "recorder@recorder." });
		texts_of_option("transcriber_prefixes", { "transcriber@recorder." });
	};
	return {
		is_exempt = is_exempt; identity_of = identity_of; is_guest = is_guest; display_name = display_name;
		is_listed = is_listed;
	};
end

return { version = "0.2.0"; new = new };
