-- Asks whether somebody may join, and reads the decision.
--
-- A sidecar can give the room's config along with its yes. The first join into a room then leads: it makes the record
-- and fills it with its answer. Whoever else comes meanwhile asks for a decision only, and waits for the record as
-- always. What becomes of the lead's session does not matter, since all this is done where the answer comes in.

local jid = require "util.jid";
local json = require "util.json";

local plain = "^[^%c\"\\]*$"; -- a text that needs no escapes in JSON

local not_modified = 304; -- the status of a config that is the known one

local state, options, safely, people, rooms, held, webhook, decisions, config, records; -- handed over by start.lib.lua

-- A member of a JSON object.
local function member(name, value)
	if value == nil then return ""; end
	if type(value) == "string" and value:find(plain) then return '"'..name..'":"'..value..'",'; end
	return '"'..name..'":'..json.encode(value)..",";
end

-- The body of the question. It is put together here, since json.encode would make many tables of it.
local function question_about(origin, stanza, room_jid, user_jid)
	local identity = people.identity_of(origin);
	return "{"..member("roomName", jid.node(room_jid) or room_jid)..member("roomJid", room_jid)
		..member("userJid", user_jid)..member("userName", people.display_name(stanza, identity))
		..member("userId", identity.id)..member("userEmail", identity.email)
		..(people.is_guest(origin, identity) and '"guest":true,' or '"guest":false,')
		..member("bearerToken", options.send_token and identity.token or nil)
		..member("meetingId", options.send_meeting_id and rooms.meeting_id(rooms.of(room_jid)) or nil)
		..'"timestamp":'..os.time().."}";
end

-- The lead has no config to give.
local function pass_on(record)
	if record.waiters or rooms.of(record.jid) then
		records.fetch(record);
	elseif state.records[record.jid] == record then
		state.records[record.jid] = nil;
	end
end

local function settle_lead(record, known_config, config_status, text)
	if record.is_given then return; end
	if config_status == not_modified and known_config then
		records.settle(record, "ready", known_config);
	elseif config_status then
		records.settle(record, config.read_answer(record.jid, config_status, text));
	else
		pass_on(record);
	end
end

-- What was settled along with the decision can be used; another record may still be asked for.
local function take(waiting, code, decision, _, config_status, room_config)
	local record = waiting.lead;
	if record then
		safely("Taking in the config", settle_lead, record, waiting.known_config, config_status, room_config);
		if record.state ~= "pending" then waiting.record = record; end
	end
	waiting.code, waiting.decision = code, decision;
	held.wake(waiting);
end

local function begin(waiting, room_jid, user_jid, body)
	if not webhook.can_join() then return webhook.ask("validate-access", body, take, waiting); end
	if not state.records[room_jid] then
		waiting.lead = records.begin(room_jid, rooms.of(room_jid), user_jid);
		waiting.known_config = config.recall(room_jid);
	end
	webhook.ask(waiting.lead and "join config" or "join", body, take, waiting);
end

-- Only in an async context: waits for the answer, or for an order. Gives the decision, and the room's record if that was
-- settled along with it.
local function ask(room_jid, user_jid, body, ticket)
	local answer = held.wait(ticket, begin, room_jid, user_jid, body);
	return decisions.read(answer.code or 0, answer.decision or "an order has come", room_jid), answer.record;
end

local function new(need)
	state, options, safely, people, rooms = need.state, need.options, need.safely, need.people, need.rooms;
	held, webhook, decisions = need.held, need.webhook, need.decisions;
	config, records = need.config, need.records;
	return { question_about = question_about; ask = ask };
end

return { version = "0.2.0"; new = new };
