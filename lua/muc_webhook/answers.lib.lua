-- Reads what the other side answers. None of it can be trusted to be well-formed.

local json = require "util.json";
local valid_utf8 = require "util.encodings".utf8.valid;

-- A JSON object, or nil for anything else. JSON's null comes as a table that is truthy.
local function read_object(text)
	local ok, value = pcall(json.decode, text or "");
	if ok and type(value) == "table" and value ~= json.null and text:find("^%s*{") then
		return value;
	end
	return nil;
end

-- Text from outside that goes into a stanza.
local function presentable(text, default)
	if type(text) ~= "string" then return default; end
	text = text:gsub("%c+", " "):match("^%s*(.-)%s*$");
	if text == "" or not valid_utf8(text) then return default; end
	if #text > 500 then
		text = text:sub(1, 500);
		while not valid_utf8(text) do text = text:sub(1, -2); end
	end
	-- Jitsi's frontend takes this text as the order to try again at once.
	if text:find("Room creation is restricted", 1, true) then return default; end
	return text;
end

-- JSON texts, each with a byte 0x1E before it and a line feed behind it (RFC 7464); 0x1E cannot be in one of them.
local function read_sequence(text)
	local first, rest = text:match("^\30([^\30]*)\n()");
	if not first then return text, nil; end
	return first, text:match("^\30([^\30]*)\n", rest);
end

local function new()
	return { read_object = read_object; read_sequence = read_sequence; presentable = presentable };
end

return { version = "0.2.0"; new = new };
