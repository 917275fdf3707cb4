-- The module's options, read and checked once.
--
-- A wrong option must not open the rooms. So the gate starts all the same, says what is wrong, and refuses every join
-- until that is fixed.

local known_options, problems = {}, {};

local function option(name, default, check, expected)
	known_options[name] = true;
	local value = module:get_option(name);
	if value == nil then return default; end
	local checked = check(value);
	if checked == nil then
		local shown = name:find("secret", 1, true) and "what it is" or tostring(value);
		table.insert(problems, ("%s has to be %s, not %s"):format(name, expected, shown));
		return default;
	end
	return checked;
end

local function url_option(name)
	local url = option(name, nil, function (value)
		return type(value) == "string" and value:match("^https?://[^/%s]+[^%s]*$") or nil;
	end, "a URL like http://127.0.0.1:8788/webhooks/jitsi");
	return url and url:gsub("/+$", "") or nil;
end

local function text_option(name, default)
	return option(name, default, function (value)
		return type(value) == "string" and value ~= "" and not value:find("[\r\n]") and value or nil;
	end, "a line of text");
end

local function flag_option(name, default)
	return option(name, default, function (value)
		if type(value) == "boolean" then return value; end
		return nil;
	end, "true or false");
end

local function number_option(name, default, least, most)
	return option(name, default, function (value)
		value = tonumber(value);
		return value and value >= least and value <= most and value or nil;
	end, ("a number from %g to %g"):format(least, most));
end

-- Reads a list as the set of its members; `allowed` names the only members there may be.
local function set_option(name, allowed)
	return option(name, {}, function (value)
		if type(value) == "string" then value = { value }; end
		if type(value) ~= "table" then return nil; end
		local set = {};
		for _, member in ipairs(value._items or value) do
			if type(member) ~= "string" or (allowed and not allowed[member]) then return nil; end
			set[member] = true;
		end
		return set;
	end, "a list of names"..(allowed and " (of the events there are)" or ""));
end

local event_names = {
	["user-joined"] = true; ["user-left"] = true; ["room-destroyed"] = true; ["moderator-changed"] = true;
	["recording"] = true;
};

-- A misspelt option would otherwise be a setting that silently does nothing.
local function warn_of_unknown_options()
	local all_options = require "core.configmanager".getconfig();
	for _, host in ipairs { "*", module.host } do
		for name in pairs(all_options[host] or {}) do
			if type(name) == "string" and name:find("^muc_webhook_") and not known_options[name] then
				module:log("warn", "There is no option %s; see the module's page for those there are", name);
			end
		end
	end
end

-- What works but is probably not meant.
local function advice(options)
	local list = {};
	for name, url in pairs { muc_webhook_url = options.url, muc_webhook_fallback_url = options.fallback_url } do
		local host = url:match("^http://%[?([^/%]]-)%]?:?%d*$") or url:match("^http://([^/:]+)");
		local secret = name == "muc_webhook_url" and options.secret or name ~= "muc_webhook_url" and options.fallback_secret;
		if host and secret and host ~= "localhost" and not host:find("^127%.") and host ~= "[" then
			table.insert(list, ("%s is not https: the secret can be read on the way to %s"):format(name, host));
		end
	end
	if options.url and options.url == options.fallback_url then
		table.insert(list, "muc_webhook_fallback_url is muc_webhook_url: it helps only if it leads elsewhere");
	end
	if options.fail_open then
		table.insert(list, "muc_webhook_fail_open lets everybody in while the meeting service cannot be reached");
	end
	if require "core.configmanager".get("*", "muc_room_default_members_only") then
		table.insert(list, "muc_room_default_members_only is set for all components, which closes Jitsi's lobbies and "
			.."breakout rooms: set it in the section of "..module.host.." only");
	end
	table.sort(list);
	return list;
end

-- Prosody's own options, which refuse where not even the guard is loaded. Not for the log: without jicofo they may be
-- left out on purpose.
local function missing_locks()
	local list = {};
	for _, name in ipairs { "restrict_room_creation"; "muc_room_default_members_only" } do
		if not module:get_option(name) then table.insert(list, name.." = true"); end
	end
	if not list[1] then return nil; end
	return ("if mod_muc_webhook.lua is damaged or missing at a restart, every room is open. Set %s on %s to refuse then")
		:format(table.concat(list, " and "), module.host);
end

local function read_options()
	local url, secret = url_option("muc_webhook_url"), text_option("muc_webhook_secret");
	return {
		url = url;
		secret = secret;
		timeout = number_option("muc_webhook_timeout", 5, 0.1, 300);
		fallback_url = url_option("muc_webhook_fallback_url");
		fallback_secret = text_option("muc_webhook_fallback_secret", secret);
		fail_open = flag_option("muc_webhook_fail_open", false);
		exempt_jids = set_option("muc_webhook_exempt");
		verifying_authentications = set_option("muc_webhook_token_authentications");
		send_token = flag_option("muc_webhook_send_token", true);
		send_meeting_id = flag_option("muc_webhook_send_meeting_id", false);
		subject_from_title = flag_option("muc_webhook_subject", false);
		frontend_settings = set_option("muc_webhook_frontend_settings");
		events = set_option("muc_webhook_events", event_names);
		queue_size = number_option("muc_webhook_queue_size", 10000, 1, 1000000);
		enforce_duration = flag_option("muc_webhook_enforce_duration", true);
		warning_minutes = number_option("muc_webhook_duration_warning", 5, 0, 1440);
	};
end

local function new()
	local options = read_options();
	if not options.url and #problems == 0 then
		table.insert(problems, "muc_webhook_url is not set");
	end
	warn_of_unknown_options();
	options.problems, options.are_wrong = problems, #problems > 0;
	options.advice, options.missing_locks = advice(options), missing_locks();
	return options;
end

return { version = "0.2.0"; new = new };
