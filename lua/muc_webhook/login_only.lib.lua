-- isPublic = false: nobody comes in without an account, or a token that the server has verified.

local host, people; -- handed over by start.lib.lua

local anonymous = { ["anonymous"] = true; ["jitsi-anonymous"] = true };
local has_warned = false;

-- The virtual host whose users meet in these rooms.
local function users_host()
	local name = module:get_option_string("muc_mapper_domain_base") or module.host:gsub("^[^%.]+%.", "");
	return prosody.hosts[name];
end

-- Then nobody could come in. It is looked up each time, since that host may be loaded after this module.
local function verifies_nobody()
	local of_users = users_host();
	local provider = of_users and of_users.users and of_users.users.name;
	if not anonymous[provider] then return false; end
	if not has_warned then
		has_warned = true;
		module:log("warn", "isPublic = false cannot be enforced: the authentication of %s verifies nobody. Such rooms are "
			.."members-only instead, and everybody is asked about.", of_users.host or host.host);
	end
	return true;
end

-- `record`, if it is there, is the room's.
local function turns_away(record, origin)
	local settings = record and record.state == "ready" and record.settings;
	if not settings or settings.isPublic ~= false then return false; end
	return people.is_guest(origin, people.identity_of(origin)) and not verifies_nobody();
end

local function new(need)
	host, people = prosody.hosts[module.host], need.people;
	return { verifies_nobody = verifies_nobody; turns_away = turns_away };
end

return { version = "0.2.0"; new = new };
