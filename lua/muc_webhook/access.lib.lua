-- Asks whether somebody may join, and reads the decision.
--
-- A sidecar can give the room's config along with its yes. The first join into a room then leads: it makes the record
-- and fills it with its answer. Whoever else comes meanwhile asks for a decision only, and waits for the record as
-- always. What becomes of the lead's session does not matter, since all this is done where the answer comes in.

local jid = require "util.jid";
local json = require "util.json";

local state, options, safely, people, rooms, held, webhook, decisions, config, records; -- handed over by start.lib.lua

local function question_about(origin, stanza, room_jid, room)
	local identity = people.identity_of(origin);
	return {
		roomName = jid.node(room_jid) or room_jid;
		roomJid = room_jid;
		userJid = jid.bare(stanza.attr.from);
		userName = people.display_name(stanza, identity);
		userId = identity.id;
		userEmail = identity.email;
		guest = people.is_guest(origin, identity);
		bearerToken = options.send_token and identity.token or nil;
		meetingId = options.send_meeting_id and rooms.meeting_id(room) or nil;
		timestamp = os.time();
	};
end

-- The lead has no config to give.
local function pass_on(record)
	if record.waiters[1] or rooms.of(record.jid) then
		records.fetch(record);
	elseif state.records[record.jid] == record then
		state.records[record.jid] = nil;
	end
end

local function settle_lead(record, config_status, text)
	if record.is_given then return; end
	if config_status then
		records.settle(record, config.read_answer(record.jid, config_status, text));
	else
		pass_on(record);
	end
end

-- Calls on_answer(code, decision, record); the record is there if it was settled along with the decision.
local function ask_for_join(body, question, on_answer)
	local room_jid, record = question.roomJid, nil;
	if not state.records[room_jid] then record = records.begin(room_jid, rooms.of(room_jid), question.userJid); end
	webhook.ask(record and "join config" or "join", body, function (code, decision, _, config_status, room_config)
		if record then safely("Taking in the config of "..room_jid, settle_lead, record, config_status, room_config); end
		on_answer(code, decision, record and record.state ~= "pending" and record or nil);
	end);
end

-- Only in an async context: waits for the answer, or for an order. Gives the decision, and the room's record if that was
-- settled along with it.
local function ask(question, ticket)
	local body = json.encode(question);
	local code, decision, record = 0, "an order has come", nil;
	held.wait(ticket, function (wake)
		local function take(...)
			code, decision, record = ...;
			wake();
		end
		if webhook.can_join() then
			ask_for_join(body, question, take);
		else
			webhook.ask("validate-access", body, function (answer_code, answer) take(answer_code, answer); end);
		end
	end);
	return decisions.read(code, decision, question.roomJid), record;
end

local function new(need)
	state, options, safely, people, rooms = need.state, need.options, need.safely, need.people, need.rooms;
	held, webhook, decisions = need.held, need.webhook, need.decisions;
	config, records = need.config, need.records;
	return { question_about = question_about; ask = ask };
end

return { version = "0.2.0"; new = new };
