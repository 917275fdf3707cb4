-- The settings that a room's config may hold, and their types.

local json = require "util.json";

local longest_text = 10000; -- bytes

local function is_boolean(value) return type(value) == "boolean"; end
local function is_text(value) return type(value) == "string"; end
local function is_count(value) return type(value) == "number" and value >= 0 and value % 1 == 0 and value < 2^31; end
local function is_limit(value) return is_count(value) and value > 0; end
local function is_duration(value) return type(value) == "number" and value > 0 and value < 2^31; end
local function is_whois(value) return value == "anyone" or value == "moderators"; end
local function is_id(value) return is_text(value) or type(value) == "number"; end
local function is_scalar_or_object(value) return value ~= json.null and type(value) ~= "function"; end
local function is_list(value)
	if type(value) ~= "table" or value == json.null then return false; end
	for key in pairs(value) do
		if type(key) ~= "number" then return false; end
	end
	return true;
end

-- For the room in Prosody.
local room_settings = {
	moderators = is_list; maxParticipants = is_limit; password = is_text; membersOnly = is_boolean;
	moderated = is_boolean; persistent = is_boolean; hidden = is_boolean; publicRoom = is_boolean; whois = is_whois;
	allowInvites = is_boolean; changeSubject = is_boolean; historyLength = is_count; lobbyEnabled = is_boolean;
	meetingTitle = is_text; meetingDescription = is_text; meetingId = is_id; isPublic = is_boolean;
	maxDurationMinutes = is_duration;
};

-- For the frontend, which gets these and no others.
local frontend_settings = {
	meetingTitle = is_text; meetingDescription = is_text; lobbyEnabled = is_boolean;
	audioQuality = is_scalar_or_object; toolbarButtons = is_list;
};
for name in ([[
	chatEnabled whiteboardEnabled screenShareEnabled recordingEnabled muteOnJoin videoOffOnJoin autoRecord
	reactionsEnabled raiseHandEnabled privateMessagesEnabled participantNameEditingEnabled followMeEnabled
	tileViewEnabled filmstripEnabled liveStreamingEnabled virtualBackgroundsEnabled noiseSuppressionEnabled
	e2eeEnabled hd1080pEnabled pollsEnabled breakoutRoomsEnabled speakerStatsEnabled kickParticipantsEnabled
	muteAllEnabled avModerationEnabled securityEnabled closedCaptionsEnabled sharedDocumentEnabled calendarEnabled
]]):gmatch("%S+") do
	frontend_settings[name] = is_boolean;
end

local texts, identifiers; -- handed over by start.lib.lua
local data_names = {}; -- other plugins read settings of a room under names like chat_enabled

-- What of a value can be shown: without null, and numbers that JSON lacks; texts as XML can carry them.
local function presentable(value)
	if type(value) == "string" then return texts.clean(value, longest_text); end
	if type(value) == "number" then return value - value == 0 and value or nil; end
	if type(value) ~= "table" then return value; end
	local copy = setmetatable({}, getmetatable(value));
	for key, member in pairs(value) do
		if member ~= json.null and type(key) == "string" then copy[texts.clean(key, longest_text)] = presentable(member); end
	end
	for _, member in ipairs(value) do
		if member ~= json.null then table.insert(copy, presentable(member)); end
	end
	return copy;
end

-- The members of a list that name somebody or something; the others are dropped one by one.
local list_members = {
	moderators = function (member) return identifiers.read(member); end;
	toolbarButtons = function (member) return is_text(member) and presentable(member) or nil; end;
};

local function read_list(config, name, list)
	local read, usable, has_wrong_members = list_members[name], setmetatable({}, getmetatable(list)), false;
	for _, member in ipairs(list) do
		local value = read(member);
		table.insert(usable, value);
		if value == nil and member ~= json.null then has_wrong_members = true; end
	end
	if has_wrong_members then table.insert(config.dropped, "members of "..name); end
	return usable;
end

-- What is usable of a config. Wrong types are dropped, not guessed; nulls are as good as absent.
local function add_setting(config, name, value)
	if value == json.null then return; end
	local for_room, for_frontend = room_settings[name], frontend_settings[name];
	if for_room and not for_room(value) or for_frontend and not for_frontend(value) then
		table.insert(config.dropped, name);
		return;
	end
	value = list_members[name] and read_list(config, name, value) or presentable(value);
	if for_room then config.settings[name] = value; end
	if for_frontend then config.frontend[name] = value; end
end

-- Names that the operator adds to those for the frontend.
local function add_frontend_settings(names)
	for name in pairs(names) do
		if name == "password" or name == "moderators" then
			module:log("warn", "%s is never sent to the frontend", name);
		elseif not frontend_settings[name] then
			frontend_settings[name] = is_scalar_or_object;
		end
	end
end

local function new(need)
	texts, identifiers = need.texts, need.identifiers;
	local more = need.options.frontend_settings;
	add_frontend_settings(more);
	for name in pairs(frontend_settings) do
		if not more[name] then
			data_names[name] = name:gsub("%u", function (letter) return "_"..letter:lower(); end);
		end
	end
	return { for_room = room_settings; for_frontend = frontend_settings; data_names = data_names; add = add_setting };
end

return { version = "0.2.0"; new = new };
