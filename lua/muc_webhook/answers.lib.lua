-- Reads what the other side answers. None of it can be trusted to be well-formed.

local json = require "util.json";

local texts; -- handed over by start.lib.lua

local replacement = "\\uFFFD";

-- Half of a surrogate pair, as a program writes it that has cut a text inside an emoji, is no character, and Prosody
-- reads nothing of a JSON text that holds one.
local function without_halves(text)
	if not text:find("\\u[dD][89a-fA-F]") then return text; end
	text = text:gsub("\\\\", "\\u005C"); -- what is behind a backslash that stands for itself is no escape
	text = text:gsub("\\u([dD][89abAB]%x%x)\\u([dD][c-fC-F]%x%x)", "\\+%1\\+%2");
	text = text:gsub("\\u[dD][89a-fA-F]%x%x", replacement);
	return (text:gsub("\\%+", "\\u"));
end

local literals = { ["true"] = true; ["false"] = false; ["null"] = json.null };

-- An object of plain texts, true, false and null, as most decisions are. Any other is nil, and for Prosody's decoder,
-- which takes more than twice as long.
local function read_plain_object(text)
	local object, at = {}, text:match("^{()");
	while at do
		local name, value, after = text:match('^"(%a+)":"([^"\\%c\128-\255]*)"()', at);
		if not name then
			name, value, after = text:match('^"(%a+)":(%l+)()', at);
			value = literals[value];
		end
		if value == nil then return nil; end
		object[name], at = value, text:match("^,()", after);
		if not at then return text:find("^}$", after) and object; end
	end
	return nil;
end

-- A JSON object, or nil for anything else. JSON's null comes as a table that is truthy.
local function read_object(text)
	if not text then return nil; end
	local plain = read_plain_object(text);
	if plain or not text:find("^%s*{") then return plain; end
	local ok, value = pcall(json.decode, without_halves(text));
	if ok and type(value) == "table" and value ~= json.null then return value; end
	return nil;
end

-- Text from outside that goes into a stanza.
local function presentable(text, default)
	text = texts.line(text, 500);
	-- Jitsi's frontend takes this text as the order to try again at once.
	if not text or text:find("Room creation is restricted", 1, true) then return default; end
	return text;
end

local function new(need)
	texts = need.texts;
	return { read_object = read_object; presentable = presentable };
end

return { version = "0.2.0"; new = new };
