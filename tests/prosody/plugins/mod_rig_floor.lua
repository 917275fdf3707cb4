-- The least that the job needs, as a measure of what our module costs: it tells whoever joins a constant config
-- (rig_floor_config, the JSON text of a ROOM_CONFIG). With rig_floor_url, a sidecar's, the join first waits for the
-- answer to one question over a WebSocket. With rig_floor_settings, the JSON text of a room's config, each new room gets
-- what Prosody itself has to know of it: the data in which other modules look, four setters, and its moderators. It
-- makes no promise: not if there is no answer, and not to rooms. It sets no limit, no end and no lock.

local async = require "util.async";
local jid = require "util.jid";
local json = require "util.json";
local st = require "util.stanza";
local websocket = require "net.websocket";

local config, url = module:get_option_string("rig_floor_config"), module:get_option_string("rig_floor_url");
local link;
local last_id, waiting = 0, {}; -- number of a question -> what takes the answer

module:hook("muc-occupant-session-new", function (event)
	event.room:route_stanza(st.message({ from = event.room.jid, to = event.jid, type = "groupchat" })
		:tag("json-message", { xmlns = "http://jitsi.org/jitmeet" }):text(config):up());
end, 10);

-- The names under which other modules look for what the page is told, and the values.
local function data_of(settings)
	local data = { max_participants = settings.maxParticipants; is_public = settings.isPublic; meeting_id = settings.meetingId };
	for name, value in pairs(json.decode(config).config) do
		data[name:gsub("%u", function (letter) return "_"..letter:lower(); end)] = value;
	end
	return data;
end

local function set_rooms_up(settings)
	local data = data_of(settings);
	module:hook("muc-room-pre-create", function (event)
		local room = event.room;
		for name, value in pairs(data) do room._data[name] = value; end
		room:set_whois(settings.whois);
		room:set_allow_member_invites(settings.allowInvites);
		room:set_changesubject(settings.changeSubject);
		room:set_historylength(settings.historyLength);
		for _, moderator in ipairs(settings.moderators) do room:set_affiliation(true, moderator, "owner"); end
	end, -999); -- mod_muc tracks the room at -1000
end

local function ask(stanza)
	local wait, done = async.waiter();
	local is_allowed;
	last_id = last_id + 1;
	local id = ("%d"):format(last_id);
	waiting[id] = function (answer)
		is_allowed = json.decode(answer).allowed == true;
		done();
	end;
	link:send("ask "..id.." join\n"..json.encode { -- what the sidecar is always told
		roomName = jid.node(stanza.attr.to); roomJid = jid.bare(stanza.attr.to); userJid = jid.bare(stanza.attr.from);
		userName = jid.resource(stanza.attr.to); guest = true; timestamp = os.time();
	});
	wait();
	return is_allowed;
end

local function admit(event)
	local stanza = event.stanza;
	if stanza.attr.type ~= nil or not stanza:get_child("x", "http://jabber.org/protocol/muc") then return; end
	if ask(stanza) then return; end
	event.origin.send(st.error_reply(stanza, "cancel", "not-allowed", "No"));
	return true;
end

local function take(_, message)
	local kind, id, body = message:match("^(%l+) (%w+)[^\n]*\n(.*)$");
	if kind == "answer" then
		local on_answer = waiting[id];
		waiting[id] = nil;
		on_answer(body);
	elseif kind == "ping" then
		link:send("pong "..id.."\n");
	elseif kind == "hello" then
		module:log("info", "The link of the floor is up");
		module:hook("presence/full", admit, -1); -- mod_muc is at -2
	end
end

-- Of the main loop's first turn, since net.http cannot be used before.
local function connect()
	websocket.connect((url:gsub("^http", "ws")).."/link", { protocol = "prosody-sidecar.v1" }, {
		onopen = function (socket)
			link = socket;
			link.conn:setoption("tcp-nodelay", true);
			link:send("hello 0\n"..json.encode { version = "0.2.0"; host = module.host; boot = "1-1"; timeout = 5 });
		end;
		onmessage = take;
	});
	module:add_timer(5, function () -- a link that says nothing is ended
		link:send("ping 0\n");
		return 5;
	end);
end

local settings = module:get_option_string("rig_floor_settings");
if settings then set_rooms_up(json.decode(settings)); end
if url then module:add_timer(0, connect); end
