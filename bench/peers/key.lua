-- The key of an answer: everything that it may depend on, without the timestamp. The rule is the sidecar's: the guests
-- of a room are one subject, and a token is a digest.
local cjson = require "cjson.safe";

ngx.req.read_body();
local question = cjson.decode(ngx.req.get_body_data() or "");
if type(question) ~= "table" or type(question.roomName) ~= "string" then
	return ngx.exit(400);
end

local token = type(question.bearerToken) == "string" and ngx.encode_base64(ngx.sha1_bin(question.bearerToken)) or "";
local subject = question.userId or question.userJid or "";
if question.guest == true and token == "" and not question.userId and not question.userEmail then
	subject = "guest";
end
ngx.var.answer_key = cjson.encode {
	ngx.var.uri, question.roomName, question.roomJid or "", question.meetingId or "", subject, token;
};
