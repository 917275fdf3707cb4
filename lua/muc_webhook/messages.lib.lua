-- What a room tells users: JSON for Jitsi's frontend, and lines in the chat.
--
-- They are always stanzas of their own. Of a stanza that has both, lib-jitsi-meet reads only the JSON.

local json = require "util.json";
local st = require "util.stanza";

local xmlns_jitmeet = "http://jitsi.org/jitmeet";
local xmlns_display_name = "http://jitsi.org/protocol/display-name";

local plain = "^[^%c\"\\&]*$"; -- a text that needs no escapes

-- Jitsi's frontend replaces the entities of HTML in the JSON before it reads it. With a plain &, a title could end its
-- own text, and add settings.
local function encode(value)
	if type(value) == "string" and value:find(plain) then return '"'..value..'"'; end
	return (json.encode(value):gsub("&", "\\u0026"));
end

-- For the user with the full JID `to`, or without it for all.
local function data(room_jid, to, value)
	return st.message({ from = room_jid, to = to, type = "groupchat" })
		:tag("json-message", { xmlns = xmlns_jitmeet }):text(encode(value)):up();
end

-- The error for a user who is refused. Jitsi shows no other condition well; what it does not know, it leaves alone.
local function refusal(stanza, room_jid, said)
	local reply = st.error_reply(stanza, "cancel", "not-allowed", said.reason, room_jid);
	local attr = { xmlns = xmlns_jitmeet };
	if said.status then reply:text_tag("status", said.status, attr); end
	if said.requireAuth then reply:tag("require-auth", attr):up(); end
	if said.redirectUrl then reply:text_tag("redirect-url", said.redirectUrl, attr); end
	return reply;
end

local function chat_line(room_jid, text)
	return st.message({ from = room_jid, type = "groupchat" }, text)
		:tag("display-name", { xmlns = xmlns_display_name }):text("Meeting"):up();
end

local function new()
	return { encode = encode; data = data; refusal = refusal; chat_line = chat_line };
end

return { version = "0.2.0"; new = new };
