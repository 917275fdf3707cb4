-- Text from outside that goes into a stanza.
--
-- XML has no control characters, no U+FFFE and no U+FFFF. One of them in a stanza ends the stream of everybody who gets
-- it. All of this takes time in proportion to the length, since the whole server waits meanwhile.

local valid_utf8 = require "util.encodings".utf8.valid;

local replacement = "\239\191\189"; -- U+FFFD
local no_xml = "[\0-\8\11\12\14-\31]";
local no_characters = "\239\191[\190\191]"; -- U+FFFE and U+FFFF

-- At most so many bytes, without half a character at the end.
local function cut(text, most)
	if #text <= most then return text; end
	local last = most;
	while last > most - 4 and text:find("^[\128-\191]", last + 1) do last = last - 1; end
	return text:sub(1, last);
end

local function replace_unless_valid(sequence)
	return not valid_utf8(sequence) and replacement or nil;
end

local function repair(run)
	if valid_utf8(run) then return nil; end
	local stray, rest = run:match("^([\128-\191]*)(.*)$");
	return (stray ~= "" and replacement or "")..rest:gsub("[\192-\255][\128-\191]*", replace_unless_valid);
end

-- Text that can go into a stanza: what XML lacks is replaced.
local function clean(text, most)
	text = cut(text, most);
	if not valid_utf8(text) then text = text:gsub("[\128-\255]+", repair); end
	if text:find(no_xml) then text = text:gsub(no_xml, replacement); end
	if text:find(no_characters) then text = text:gsub(no_characters, replacement); end
	return text;
end

-- One line, or nil if there is nothing to see in it.
local function line(text, most)
	if type(text) ~= "string" then return nil; end
	if #text <= most and text:find("^[!-~][ -~]*[!-~]$") then return text; end -- nothing is to be changed, as mostly
	local first = text:find("[^%s%c]");
	if not first then return nil; end
	local shown = cut(text:sub(first), most):gsub("%c+", " ");
	return clean(shown, most):match("^.*%S");
end

local function new()
	return { clean = clean; line = line };
end

return { version = "0.2.0"; new = new };
