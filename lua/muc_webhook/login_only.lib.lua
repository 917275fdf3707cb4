-- isPublic = false: nobody comes in without an account, or a token that the server has verified.

local text = "This meeting is only for users who have logged in";

local people, messages; -- handed over by start.lib.lua
local users_host; -- made by `new`: the virtual host whose users meet in these rooms

local has_warned = false;

-- Then nobody could come in. It is looked up each time, since that host may be loaded after this module.
local function verifies_nobody()
	local of_users = prosody.hosts[users_host];
	local provider = of_users and of_users.users and of_users.users.name;
	if not people.is_anonymous(provider) then return false; end
	if not has_warned then
		has_warned = true;
		module:log("warn", "isPublic = false cannot be enforced: the authentication of %s verifies nobody. Such rooms are "
			.."members-only instead, and everybody is asked about.", of_users.host);
	end
	return true;
end

-- Jitsi's page can act on a message only if it comes before the error.
local function turn_away(event, room_jid)
	local stanza = event.stanza;
	local refused = { type = "JOIN_REFUSED"; reason = text; requireAuth = true };
	event.origin.send(messages.data(room_jid, stanza.attr.from, refused));
	event.origin.send(messages.refusal(stanza, room_jid, refused));
end

-- `record`, if it is there, is the room's. Returns true if the join ends here.
local function refuses(event, record)
	local settings = record and record.state == "ready" and record.settings;
	if not settings or settings.isPublic ~= false then return false; end
	local origin = event.origin;
	if not people.is_guest(origin, people.identity_of(origin)) or verifies_nobody() then return false; end
	turn_away(event, record.jid);
	return true;
end

local function new(need)
	people, messages = need.people, need.messages;
	users_host = module:get_option_string("muc_mapper_domain_base") or module.host:gsub("^[^%.]+%.", "");
	return { verifies_nobody = verifies_nobody; refuses = refuses };
end

return { version = "0.2.0"; new = new };
