-- Reads the ids and addresses that name a person.

local valid_utf8 = require "util.encodings".utf8.valid;

local longest = 1023; -- bytes, as of a part of a JID

local function read_text(value)
	if type(value) ~= "string" or value == "" or #value > longest then return nil; end
	if value:find("%c") or not valid_utf8(value) then return nil; end
	return value;
end

-- The digits of a whole number. Two numbers must never become the same text: from 2^53 on, not every one can be told
-- from its neighbour. Some JSON readers make a float of each number, so 2^53 itself may have been 2^53 + 1.
local function read_number(value)
	if value ~= value or value % 1 ~= 0 or value == 0 and 1 / value < 0 then return nil; end
	if value > 2^53 or value < -2^53 then return nil; end
	local text = ("%d"):format(value);
	if (value == 2^53 or value == -2^53) and tostring(value) ~= text then return nil; end
	return text;
end

-- An id as text, or nil for what is none.
local function read(value)
	if type(value) == "number" then return read_number(value); end
	return read_text(value);
end

local function new()
	return { read = read; read_text = read_text };
end

return { version = "0.2.0"; new = new };
