-- What a room tells users: JSON for Jitsi's frontend.

local json = require "util.json";

-- Jitsi's frontend replaces the entities of HTML in the JSON before it reads it. With a plain &, a title could end its
-- own text, and add settings.
local function encode(value)
	return (json.encode(value):gsub("&", "\\u0026"));
end

local function new()
	return { encode = encode };
end

return { version = "0.2.0"; new = new };
