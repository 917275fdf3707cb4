-- Who somebody is: what the server vouches for, and who joins without being asked for.

local jid = require "util.jid";
local nodeprep = require "util.encodings".stringprep.nodeprep;

local xmlns_nick = "http://jabber.org/protocol/nick";

local anonymous_authentications = { ["anonymous"] = true; ["jitsi-anonymous"] = true };

local longest_name = 1023; -- bytes

local nobody = {}; -- the identity of an anonymous user; nobody changes it

local visitors, texts, identifiers; -- handed over by start.lib.lua
local admins, exempt, bot_prefixes, verifying_authentications; -- made by `new`

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

local function has_bot_prefix(bare_jid)
	for _, prefix in ipairs(bot_prefixes) do
		if bare_jid:sub(1, #prefix) == prefix then return true; end
	end
	return false;
end

-- What the options say of who was asked for last, by full or bare JID, since a join asks several times.
local last = {};

local function look_up(some_jid)
	local node, host = jid.split(some_jid);
	local bare = node and node.."@"..host or host;
	last.jid, last.bare, last.host = some_jid, bare, host;
	last.is_listed = admins[bare] or exempt[bare] or exempt[host] or false;
	last.is_bot = has_bot_prefix(bare);
end

-- By the sender's JID only, which the server vouches for. A nick such as "focus", or a child element such as
-- jigasi's <initiator>, can be written by any client.
local function is_exempt(some_jid)
	if some_jid ~= last.jid and some_jid ~= last.bare then look_up(some_jid); end
	if last.is_listed or visitors.is_mirrored(last.host) then return true; end
	return last.is_bot and prosody.hosts[last.host] ~= nil; -- anybody can have a server of such a name
end

-- The name of the authentication that a session of this server has passed.
local function authentication_of(origin)
	local host = origin and origin.type == "c2s" and prosody.hosts[origin.host];
	return host and host.users and host.users.name or nil;
end

-- Whether an authentication knows nobody: each user is a new one.
local function is_anonymous(authentication)
	return anonymous_authentications[authentication] and not verifying_authentications[authentication] or false;
end

-- Jitsi's mod_jitsi_session takes the token out of the URL of every session. Only some authentications check it; what
-- they found in it is then on the session too. On any other host a user can write there what they like.
local function identity_of(origin)
	local authentication = authentication_of(origin);
	if not authentication or is_anonymous(authentication) then return nobody; end
	if not verifying_authentications[authentication] then
		return { account = origin.username; jid = jid.join(origin.username, origin.host) };
	end
	local user = type(origin.jitsi_meet_context_user) == "table" and origin.jitsi_meet_context_user or {};
	return {
		id = identifiers.read(user.id);
		email = identifiers.read_text(user.email);
		name = texts.line(user.name, longest_name);
		token = type(origin.auth_token) == "string" and origin.auth_token ~= "" and origin.auth_token or nil;
	};
end

-- Nobody has verified who this is.
local function is_guest(origin, identity)
	if identity.token or identity.id or identity.email then return false; end
	local authentication = authentication_of(origin);
	return is_anonymous(authentication) or verifying_authentications[authentication] or false;
end

local function display_name(stanza, identity)
	local nick = stanza and stanza:get_child_text("nick", xmlns_nick);
	return texts.line(nick, longest_name) or identity.name or (stanza and jid.resource(stanza.attr.to)) or nil;
end

-- A config names moderators by the id or e-mail address in the token, or accounts of this server by JID or local name.
local function is_listed(moderators, identity)
	for _, moderator in ipairs(moderators or {}) do
		if moderator == identity.id then return true; end
		if identity.email and moderator:lower() == identity.email:lower() then return true; end
		if identity.account and (nodeprep(moderator) == identity.account or jid.prep(moderator) == identity.jid) then
			return true;
		end
	end
	return false;
end

-- Names under which an order may mean a person: what kind of name, and the name.
local function names_of(bare_jid, identity)
	local names = { "jid:"..bare_jid };
	if identity.id then table.insert(names, "id:"..identity.id); end
	if identity.email then table.insert(names, "email:"..identity.email:lower()); end
	return names;
end

-- Of a user of this server, as far as there is a session.
local function names_of_jid(bare_jid)
	local user = prosody.bare_sessions[bare_jid];
	local _, session = next(user and user.sessions or {});
	return names_of(bare_jid, identity_of(session));
end

-- What the `user` of an order can mean, as a set, or nil if it is no name at all.
local function names_meant_by(user)
	local text = identifiers.read(user);
	if not text then return nil; end
	local names = { ["id:"..text] = true; ["email:"..text:lower()] = true };
	local bare_jid = jid.bare(jid.prep(text));
	if bare_jid then names["jid:"..bare_jid] = true; end
	return names;
end

local function is_meant(meant, names)
	for _, name in ipairs(names) do
		if meant[name] then return true; end
	end
	return false;
end

local function new(need)
	visitors, texts, identifiers = need.visitors, need.texts, need.identifiers;
	verifying_authentications = { ["token"] = true };
	for name in pairs(need.options.verifying_authentications) do verifying_authentications[name] = true; end
	admins = union_of_options { "admins" };
	exempt = union_of_options {
		"muc_access_whitelist"; "muc_lobby_whitelist"; "muc_password_whitelist"; "token_verification_allowlist";
	};
	for member in pairs(need.options.exempt_jids) do exempt[jid.prep(member) or member] = true; end
	bot_prefixes = texts_of_option("recorder_prefixes", { "recorder@recorder." });
	for _, prefix in ipairs(texts_of_option("transcriber_prefixes", { "transcriber@recorder." })) do
		table.insert(bot_prefixes, prefix);
	end
	return {
		is_exempt = is_exempt; is_anonymous = is_anonymous; identity_of = identity_of; is_guest = is_guest;
		display_name = display_name; is_listed = is_listed; names_of = names_of; names_of_jid = names_of_jid;
		names_meant_by = names_meant_by; is_meant = is_meant;
	};
end

return { version = "0.2.0"; new = new };
