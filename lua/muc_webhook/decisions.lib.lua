-- What a decision says, and which decision it was that let a user in.
--
-- It is kept by the stanza of the join, so that the hooks inside mod_muc find it. A field that cannot be read is left
-- out; only requireLobby then counts as true, since without it somebody would come in who should wait. The sidecar
-- judges in the same way (sidecar/core/decision_body.py).

local json = require "util.json";

local most_minutes = 2^31 - 1;

local state, answers, texts; -- handed over by start.lib.lua
local readers; -- made by `new`: a field -> what gives a value to use of it, or nil

local function read_minutes(value)
	if type(value) == "string" and value:find("^%-?%d+%.?%d*$") then value = tonumber(value); end
	if type(value) ~= "number" or value - value ~= 0 then return nil; end
	return math.max(0, math.min(value, most_minutes));
end

local function read_configuration(value)
	return type(value) == "table" and json.encode(value) or nil;
end

local function new_readers(read_flag)
	return {
		isModerator = read_flag; requireLobby = read_flag; requireAuth = read_flag; remainingMinutes = read_minutes;
		configuration = read_configuration;
		status = function (value) return texts.line(value, 100); end;
		redirectUrl = function (value) return texts.line(value, 2000); end;
	};
end

-- The fields that can be read, and the names of those that cannot, if there are any.
local function fields_of(answer, room_jid)
	local fields, wrong = {}, nil;
	for name, value in pairs(answer) do
		local read = readers[name];
		if read and value ~= json.null and value ~= "" then
			fields[name] = read(value);
			if fields[name] == nil then
				wrong = wrong or {};
				table.insert(wrong, name);
			end
		end
	end
	if not wrong then return fields; end
	table.sort(wrong);
	module:log("warn", "A decision about %s has fields of a wrong type, which are not used: %s%s", room_jid,
		table.concat(wrong, ", "), fields.requireLobby == nil and answer.requireLobby and "; the user waits in the lobby" or "");
	return fields, wrong;
end

local function contains(list, name)
	for _, member in ipairs(list) do
		if member == name then return true; end
	end
	return false;
end

-- What a page may show of a denial, or act on.
local function refusal_in(answer, fields, reason)
	return {
		type = "JOIN_REFUSED"; reason = reason; title = texts.line(answer.meetingTitle, 500);
		status = fields.status; redirectUrl = fields.redirectUrl; requireAuth = fields.requireAuth;
	};
end

local none = {}; -- nobody changes it
local deciders = { backend = true; memory = true; policy = true };

-- `verdict` is "allow", "deny" with a `refusal`, or "unavailable" with the cause as `reason`.
local function read(code, text, room_jid)
	local answer = code ~= 0 and answers.read_object(text);
	local is_success = code >= 200 and code < 300;
	if not answer or not (answer.allowed == true and is_success
		or answer.allowed == false and (is_success or code >= 400 and code < 500)) then
		local cause = code == 0 and text or "no decision in an answer with status "..code;
		return { verdict = "unavailable"; reason = cause; by = "policy" };
	end
	local fields, wrong = fields_of(answer, room_jid);
	local decision = {
		by = deciders[answer.decidedBy] and answer.decidedBy or "backend"; id = texts.line(answer.decisionId, 100);
		at = os.time();
	};
	if answer.allowed then
		decision.verdict, decision.is_moderator = "allow", fields.isModerator == true;
		decision.waits = fields.requireLobby == true or wrong ~= nil and contains(wrong, "requireLobby");
		decision.minutes, decision.configuration = fields.remainingMinutes, fields.configuration;
	else
		decision.verdict = "deny";
		decision.reason = answers.presentable(answer.reason, "You are not allowed to join this meeting");
		decision.refusal = refusal_in(answer, fields, decision.reason);
	end
	return decision;
end

local function remember(stanza, decision)
	state.decisions[stanza] = decision;
end

-- The decision that let in whom this stanza is of; an empty one if there is none.
local function of(stanza)
	return stanza and state.decisions[stanza] or none;
end

local function new(need)
	state, answers, texts = need.state, need.answers, need.texts;
	readers = new_readers(need.settings.for_room.lobbyEnabled);
	return { read = read; remember = remember; of = of };
end

return { version = "0.2.0"; new = new };
