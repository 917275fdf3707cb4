-- The settings that a room's config may hold, and what is read of them.
--
-- A reader gives the value to use, or nil if the value is of a wrong type. Such a setting is dropped, unless it
-- protects the room: without it the room would be less protected than its owner wants, so the whole config is unusable
-- then. The sidecar judges in the same way (sidecar/core/protection.py).

local json = require "util.json";

local longest_text = 10000; -- bytes
local most_number = 2^31 - 1;
local absent = {}; -- what a reader gives for a value that says nothing

local texts, identifiers; -- handed over by start.lib.lua

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

local function read_boolean(value)
	if type(value) == "boolean" then return value; end
	return nil;
end

local function read_text(value) return type(value) == "string" and presentable(value) or nil; end
local function read_whois(value) return (value == "anyone" or value == "moderators") and value or nil; end
local function read_id(value) return (type(value) == "string" or type(value) == "number") and presentable(value) or nil; end

local function read_count(value)
	return type(value) == "number" and value >= 0 and value % 1 == 0 and value <= most_number and value or nil;
end

-- The members that cannot be read are dropped one by one; the second result says whether there are any.
local function read_list(value, read_member)
	if type(value) ~= "table" then return nil; end
	local list, has_wrong_members = setmetatable({}, getmetatable(value)), false;
	for key in pairs(value) do
		if type(key) ~= "number" then return nil; end
	end
	for _, member in ipairs(value) do
		local read = read_member(member);
		table.insert(list, read);
		if read == nil and member ~= json.null then has_wrong_members = true; end
	end
	return list, has_wrong_members;
end

local function read_moderators(value) return read_list(value, identifiers.read); end
local function read_texts(value) return read_list(value, read_text); end

local function read_flag(value)
	if value == "true" or value == 1 then return true; end
	if value == "false" or value == 0 then return false; end
	return read_boolean(value);
end

-- A number becomes its digits, if every program writes the same ones.
local function read_password(value)
	if type(value) == "string" then return texts.clean(value, #value); end
	if type(value) ~= "number" or value < 0 or value >= 2^53 then return nil; end
	return value % 1 == 0 and ("%d"):format(value) or nil;
end

local function read_duration(value)
	if type(value) == "string" then
		local whole, fraction = value:match("^(%d+)(.*)$");
		local is_decimal = whole and #whole <= 15 and (fraction == "" or fraction:find("^%.%d+$") and #fraction <= 16);
		value = is_decimal and tonumber(value);
	end
	if type(value) ~= "number" or value - value ~= 0 or value < 0 then return nil; end
	return value == 0 and absent or math.min(value, most_number);
end

local function read_limit(value)
	if type(value) == "string" and not value:find("^%d+$") then return nil; end
	local limit = read_duration(value);
	return (limit == absent or limit and limit % 1 == 0) and limit or nil;
end

local protective = {
	password = read_password; membersOnly = read_flag; isPublic = read_flag; lobbyEnabled = read_flag;
	maxParticipants = read_limit; moderated = read_flag; hidden = read_flag; maxDurationMinutes = read_duration;
};

-- For the room in Prosody.
local room_settings = {
	moderators = read_moderators; persistent = read_boolean; publicRoom = read_boolean; whois = read_whois;
	allowInvites = read_boolean; changeSubject = read_boolean; historyLength = read_count;
	meetingTitle = read_text; meetingDescription = read_text; meetingId = read_id;
};
for name, read in pairs(protective) do room_settings[name] = read; end

-- For the frontend, which gets these and no others.
local frontend_settings = {
	meetingTitle = read_text; meetingDescription = read_text; lobbyEnabled = read_flag;
	audioQuality = presentable; toolbarButtons = read_texts;
};
for name in ([[
	chatEnabled whiteboardEnabled screenShareEnabled recordingEnabled muteOnJoin videoOffOnJoin autoRecord
	reactionsEnabled raiseHandEnabled privateMessagesEnabled participantNameEditingEnabled followMeEnabled
	tileViewEnabled filmstripEnabled liveStreamingEnabled virtualBackgroundsEnabled noiseSuppressionEnabled
	e2eeEnabled hd1080pEnabled pollsEnabled breakoutRoomsEnabled speakerStatsEnabled kickParticipantsEnabled
	muteAllEnabled avModerationEnabled securityEnabled closedCaptionsEnabled sharedDocumentEnabled calendarEnabled
]]):gmatch("%S+") do
	frontend_settings[name] = read_boolean;
end

local data_names = {}; -- other plugins read settings of a room under names like chat_enabled

-- Adds what is usable of a setting to a config, or its name to what is wrong there. Null is as good as absent, and so
-- is an empty text for a setting that protects. An empty password says that there is none.
local function add_setting(config, name, value)
	local read = room_settings[name] or frontend_settings[name];
	if not read or value == json.null or value == "" and protective[name] and name ~= "password" then return; end
	local usable, has_wrong_members = read(value);
	if usable == absent then return; end
	if usable == nil then return table.insert(protective[name] and config.unreadable or config.dropped, name); end
	if has_wrong_members then table.insert(config.dropped, "members of "..name); end
	if room_settings[name] then config.settings[name] = usable; end
	if frontend_settings[name] then config.frontend[name] = usable; end
end

-- Names that the operator adds to those for the frontend.
local function add_frontend_settings(names)
	for name in pairs(names) do
		if name == "password" or name == "moderators" then
			module:log("warn", "%s is never sent to the frontend", name);
		elseif not frontend_settings[name] then
			frontend_settings[name] = presentable;
		end
	end
end

local function new(need)
	texts, identifiers = need.texts, need.identifiers;
	for name in pairs(frontend_settings) do
		data_names[name] = name:gsub("%u", function (letter) return "_"..letter:lower(); end);
	end
	add_frontend_settings(need.options.frontend_settings);
	return { for_room = room_settings; for_frontend = frontend_settings; data_names = data_names; add = add_setting };
end

return { version = "0.2.0"; new = new };
