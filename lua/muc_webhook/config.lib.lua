-- Reads a room's config from its text.
--
-- The rooms of a service differ in little. What usually differs is cut out of a config's text, and the rest is read
-- and written but once: a shape is the text between those values, and what it says. To read each room's 50 settings
-- again would cost more than all else in a join. What rooms have in common, they share: nobody changes it.

local cache = require "util.cache";
local json = require "util.json";
local sha256 = require "util.hashes".sha256;
local new_uuid = require "util.uuid".generate;

local answers, settings, messages; -- handed over by start.lib.lua

local own_settings = {
	["meetingTitle"] = true; ["meetingDescription"] = true; ["meetingId"] = true; ["moderators"] = true;
	["password"] = true;
};
local shapes = {}; -- the latest first
local most_shapes = 8;
local biggest_shape = 64 * 1024; -- to compare a text with eight bigger ones would take long

-- A value that ends where it seems to: a text without escapes, a list of such, a number or a name.
local function read_plain_value(text, at)
	local raw, after = text:match('^("[^"\\%c]*")()', at);
	if not raw then raw, after = text:match('^(%[[^%[%]{}\\%c]*%])()', at); end
	if not raw then raw, after = text:match("^([%w.+-]+)()", at); end
	if not raw then return nil; end
	local ok, value = pcall(json.decode, raw);
	if ok and value ~= nil then return value, after; end
	return nil;
end

-- The position behind the quote that ends a text.
local function end_of_text(text, at)
	while true do
		local from, _, char = text:find('(["\\])', at);
		if not from or char == '"' then return from and from + 1; end
		at = from + 2;
	end
end

-- Where the own settings are in a text: members of the object itself, not of one inside of it, that have plain values.
local function find_own_settings(text)
	local places, depth, at = {}, 0, 1;
	while at do
		local from, _, char = text:find('(["{}%[%]])', at);
		if not from then break; end
		at = from + 1;
		if char == '"' then
			at = end_of_text(text, at);
			local name = depth == 1 and at and text:sub(from + 1, at - 2);
			local value_at = own_settings[name] and text:match("^%s*:%s*()", at);
			if value_at then
				local value, after = read_plain_value(text, value_at);
				if value ~= nil then table.insert(places, { name = name; from = value_at; after = after }); end
			end
		else
			depth = depth + ((char == "{" or char == "[") and 1 or -1);
		end
	end
	return places;
end

-- What a text with marks in the places of the own settings says, or nil if they are not the own settings' places: such
-- a setting is there twice, or under two spellings of its name.
local function read_common_part(shape)
	local marks, marked = {}, { shape.parts[1] };
	for i in ipairs(shape.names) do
		marks[i] = new_uuid();
		table.insert(marked, '"'..marks[i]..'"'..shape.parts[i + 1]);
	end
	local object = answers.read_object(table.concat(marked));
	for i, name in ipairs(shape.names) do
		if not object or object[name] ~= marks[i] then return nil; end
		object[name] = nil;
	end
	return object;
end

local function new_shape(text, places)
	local shape = { names = {}; parts = {}; settings = {}; frontend = {}; dropped = {}; unreadable = {} };
	local at = 1;
	for i, place in ipairs(places) do
		shape.names[i], shape.parts[i] = place.name, text:sub(at, place.from - 1);
		at = place.after;
	end
	table.insert(shape.parts, text:sub(at));

	local object = read_common_part(shape);
	if not object then return nil; end
	for name, value in pairs(object) do settings.add(shape, name, value); end
	shape.settings_mt, shape.frontend_mt = { __index = shape.settings }, { __index = shape.frontend };
	shape.payload = '{"type":"ROOM_CONFIG","config":'..messages.encode(shape.frontend):sub(1, -2);
	return shape;
end

-- What a text of this shape says, or nil if it is of another.
local function read_by_shape(shape, text)
	local values, at = {}, 1;
	for i, part in ipairs(shape.parts) do
		local from, to = text:find(part, at, true);
		if from ~= at then return nil; end
		at = to + 1;
		if shape.names[i] then
			values[i], at = read_plain_value(text, at);
			if not at then return nil; end
		end
	end
	if at <= #text then return nil; end

	local config = { text = text; dropped = { table.unpack(shape.dropped) }; unreadable = { table.unpack(shape.unreadable) } };
	config.settings = setmetatable({}, shape.settings_mt);
	config.frontend = setmetatable({}, shape.frontend_mt);
	local payload = { shape.payload };
	for i, name in ipairs(shape.names) do
		settings.add(config, name, values[i]);
		local value = config.frontend[name];
		if value ~= nil then
			local comma = (payload[2] or next(shape.frontend) ~= nil) and "," or "";
			table.insert(payload, ('%s"%s":%s'):format(comma, name, messages.encode(value)));
		end
	end
	table.insert(payload, "}}");
	config.payload = table.concat(payload);
	return config;
end

-- What a room's config says, or nil if it is no JSON object.
local function read_all(text)
	for _, shape in ipairs(shapes) do
		local config = read_by_shape(shape, text);
		if config then return config; end
	end
	local is_big = #text > biggest_shape;
	local shape = not is_big and new_shape(text, find_own_settings(text)) or new_shape(text, {});
	if not shape then return nil; end
	if not is_big then
		table.insert(shapes, 1, shape);
		shapes[most_shapes + 1] = nil;
	end
	return read_by_shape(shape, text);
end

local most_remembered = 1000;
local remembered = cache.new(most_remembered); -- room JID -> the latest config of that room

-- For when the room is made again: most rooms have the same config then, and the sidecar need not send it.
local function remember(room_jid, config)
	remembered:set(room_jid, config);
end

-- With its digest, by which the sidecar knows it.
local function recall(room_jid)
	local config = remembered:get(room_jid);
	if config then config.digest = config.digest or sha256(config.text, true):sub(1, 32); end
	return config;
end

-- The settings for the frontend that other rooms have too, and the room's own, which count more.
local function parts_of(frontend)
	return getmetatable(frontend).__index, frontend;
end

-- The settings for the frontend in a table of their own, whose names and values are what `change` makes of them.
local function all_of(frontend, change)
	local common, own = parts_of(frontend);
	local all = {};
	for name, value in pairs(common) do all[change(name)] = change(value); end
	for name, value in pairs(own) do all[change(name)] = change(value); end
	return all;
end

-- A usable config, or nil and, if it is one at all, which of the settings that protect the room cannot be read.
local function read(text)
	local config = read_all(text);
	if not config or not config.unreadable[1] then return config; end
	table.sort(config.unreadable);
	return nil, table.concat(config.unreadable, ", ");
end

local refusing_codes = { [400] = true; [404] = true; [409] = true; [410] = true; [422] = true };

-- "ready" with the config, "refused" with a reason, or "failed" with the cause.
local function read_answer(room_jid, code, text)
	if code == 0 then return "failed", text; end
	if code >= 200 and code < 300 then
		local config, unreadable = read(text);
		if config then return "ready", config; end
		if unreadable then
			module:log("error", "The config of %s is not used, because settings that protect the room have a wrong type: %s",
				room_jid, unreadable);
			return "failed", "a config with a wrong type of "..unreadable;
		end
	elseif refusing_codes[code] then
		local answer = answers.read_object(text);
		if answer then
			local presentable = answers.presentable;
			return "refused", presentable(answer.reason) or presentable(answer.message) or presentable(answer.detail)
				or "The meeting service refuses this room";
		end
	end
	return "failed", "no room config in an answer with status "..code;
end

local function new(need)
	answers, settings, messages = need.answers, need.settings, need.messages;
	return {
		read = read; read_answer = read_answer; parts_of = parts_of; all_of = all_of; remember = remember; recall = recall;
	};
end

return { version = "0.2.0"; new = new };
