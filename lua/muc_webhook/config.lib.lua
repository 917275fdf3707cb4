-- Reads a room's config from its text.
--
-- The rooms of a service differ in little. What usually differs is cut out of a config's text, and the rest is read
-- and written but once: a shape is the text between those values, and what it says. To read each room's 50 settings
-- again would cost more than all else in a join. What rooms have in common, they share: nobody changes it.

local json = require "util.json";

local answers, settings; -- handed over by start.lib.lua

local own_settings = { "meetingTitle"; "meetingDescription"; "meetingId"; "moderators"; "password" };
local shapes = {}; -- the latest first
local most_shapes = 8;

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

-- Where the own settings are in a text, as far as they have plain values.
local function find_own_settings(text)
	local places = {};
	for _, name in ipairs(own_settings) do
		local _, to = text:find('"'..name..'"', 1, true);
		local at = to and text:match("^%s*:%s*()", to + 1);
		local value, after;
		if at then value, after = read_plain_value(text, at); end
		if value ~= nil then table.insert(places, { name = name; from = at; after = after; value = value }); end
	end
	table.sort(places, function (a, b) return a.from < b.from; end);
	return places;
end

local function new_shape(text, places)
	local shape = { names = {}; parts = {}; settings = {}; frontend = {}; dropped = {} };
	local at = 1;
	for i, place in ipairs(places) do
		shape.names[i], shape.parts[i] = place.name, text:sub(at, place.from - 1);
		at = place.after;
	end
	table.insert(shape.parts, text:sub(at));

	local object = answers.read_object(table.concat(shape.parts, "null"));
	if not object then return nil; end
	for _, name in ipairs(shape.names) do
		if object[name] ~= json.null then return nil; end -- it is deep inside of something, or there twice
	end
	for name, value in pairs(object) do settings.add(shape, name, value); end
	shape.settings_mt, shape.frontend_mt = { __index = shape.settings }, { __index = shape.frontend };
	shape.payload = '{"type":"ROOM_CONFIG","config":'..json.encode(shape.frontend):sub(1, -2);
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

	local config = { text = text; dropped = { table.unpack(shape.dropped) } };
	config.settings = setmetatable({}, shape.settings_mt);
	config.frontend = setmetatable({}, shape.frontend_mt);
	local payload = { shape.payload };
	for i, name in ipairs(shape.names) do
		settings.add(config, name, values[i]);
		local value = config.frontend[name];
		if value ~= nil then
			local comma = (payload[2] or next(shape.frontend) ~= nil) and "," or "";
			table.insert(payload, ('%s"%s":%s'):format(comma, name, json.encode(value)));
		end
	end
	table.insert(payload, "}}");
	config.payload = table.concat(payload);
	return config;
end

-- What is usable of a room's config, or nil if it is no JSON object.
local function read(text)
	for _, shape in ipairs(shapes) do
		local config = read_by_shape(shape, text);
		if config then return config; end
	end
	local shape = new_shape(text, find_own_settings(text)) or new_shape(text, {});
	if not shape then return nil; end
	table.insert(shapes, 1, shape);
	shapes[most_shapes + 1] = nil;
	return read_by_shape(shape, text);
end

local refusing_codes = { [400] = true; [404] = true; [409] = true; [410] = true; [422] = true };

-- "ready" with the config, "refused" with a reason, or "failed" with the cause.
local function read_answer(code, text)
	if code == 0 then return "failed", text; end
	if code >= 200 and code < 300 then
		local config = read(text);
		if config then return "ready", config; end
	elseif refusing_codes[code] then
		local answer = answers.read_object(text);
		if answer then
			local reason = answer.reason or answer.message or answer.detail;
			return "refused", answers.presentable(reason, "The meeting service refuses this room");
		end
	end
	return "failed", "no room config in an answer with status "..code;
end

local function new(need)
	answers, settings = need.answers, need.settings;
	return { read = read; read_answer = read_answer };
end

return { version = "0.2.0"; new = new };
