-- What to expect of the modules of Jitsi and jitsi-contrib that are there.

local configmanager = require "core.configmanager";

local host; -- made by `new`

local on_component = {
	{ "muc_meeting_id", "the setting moderated is not applied" };
	{ "muc_hide_all", "publicRoom = true lists no room" };
	{ "muc_wait_for_host", "guests wait for the host with any config; then the config's locks are set again" };
	{ "muc_allowners", "everybody becomes a moderator, whatever the config says" };
	{ "token_affiliation", "users become moderators by their token too" };
	{ "muc_max_occupants", "its limit holds as well as maxParticipants, and without muc_access_whitelist it counts jicofo and "
		.."recorders" };
	{ "per_room_max_occupants", "its limit holds as well as maxParticipants" };
	{ "time_restricted", "its time limit holds as well as maxDurationMinutes" };
	{ "per_room_time_restricted", "its time limit holds as well as maxDurationMinutes" };
	{ "owner_restricted", "it ends meetings without a moderator" };
	{ "token_owner_party", "it ends meetings when the moderator leaves" };
	{ "jibri_autostart", "it starts a recording of each meeting; with autoRecord, jicofo gets a second request and refuses it" };
	{ "lobby_autostart", "each room has a lobby; users who are allowed wait in it" };
	{ "lobby_autostart_on_owner", "it opens lobbies, in which users who are allowed wait" };
	{ "lobby_deactivate", "it can remove the config's lobby" };
	{ "token_lobby_autostart", "it opens lobbies, in which users who are allowed wait" };
	{ "token_lobby_ondemand", "the token decides who waits in a lobby, also in the config's" };
	{ "token_lobby_bypass", "the token leads past the config's lobby" };
	{ "token_lobby_bypass_for_initiator", "the token leads past the config's lobby" };
	{ "token_security_ondemand", "the token decides about the lobby and the password, also about the config's" };
	{ "secure_domain_lobby_bypass", "users with an account are led past the config's lobby" };
	{ "matrix_lobby_bypass", "the token leads past the config's lobby" };
	{ "fmuc", "this is a visitor node: who is allowed becomes a visitor, and maxParticipants, membersOnly, lobbyEnabled and "
		.."moderators are not applied" };
};

local on_virtual_host = {
	{ "persistent_lobby", "rooms with its lobby stay while somebody waits, also with persistent = false" };
	{ "muc_breakout_rooms", "only who has been in the main room gets into its breakout rooms" };
	{ "reservations", "it decides about rooms too: a room begins only if both allow it" };
	{ "visitors", "load this module on the visitor nodes too, or users who are denied get in there" };
};

local function names_of(name)
	local names = {};
	local list = configmanager.get(name, "modules_enabled");
	for _, module_name in ipairs(type(list) == "table" and list or {}) do names[module_name] = true; end
	for module_name in pairs(prosody.hosts[name] and prosody.hosts[name].modules or {}) do names[module_name] = true; end
	return names;
end

local function add(list, known, names)
	for _, neighbour in ipairs(known) do
		if names[neighbour[1]] then table.insert(list, ("beside %s: %s"):format(neighbour[1], neighbour[2])); end
	end
end

-- Modules that are loaded later are found by the configuration.
local function list()
	local found = {};
	add(found, on_component, names_of(module.host));
	local of_users = {};
	for name in pairs(prosody.hosts) do
		if configmanager.get(name, "main_muc") == module.host then
			for module_name in pairs(names_of(name)) do of_users[module_name] = true; end
		end
	end
	add(found, on_virtual_host, of_users);
	return found;
end

local function report()
	for _, hint in ipairs(list()) do module:log("info", "%s: %s", host.host, hint); end
end

local function new()
	host = prosody.hosts[module.host];
	return { list = list; report = report };
end

return { version = "0.2.0"; new = new };
