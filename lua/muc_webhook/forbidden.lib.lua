-- What a room's config forbids, refused here: recordings, live streams, chat, private messages, A/V moderation.
--
-- It holds for moderators too. What was forbidden is read from the room's data, where it stays as long as the room
-- does, also while this module or mod_muc is reloaded.

local configmanager = require "core.configmanager";
local jid = require "util.jid";
local st = require "util.stanza";

local xmlns_jibri = "http://jitsi.org/protocol/jibri";

local rooms, people, data_names; -- handed over by start.lib.lua

local function forbids(room, setting)
	return room._data[data_names[setting]] == false;
end

-- The mode of the recording ("file" or "stream") that a stanza asks to start, or nil.
local function mode_to_start(stanza)
	local jibri = stanza.attr.type == "set" and stanza:get_child("jibri", xmlns_jibri);
	if not jibri or (jibri.attr.action or ""):lower() ~= "start" or jibri.attr.sip_address then return nil; end
	return (jibri.attr.recording_mode or ""):lower() == "file" and "file" or "stream";
end

-- `main_room_of` gives the room that has the config, for the JID of that room or of one of its breakout rooms.
local function on_iq(event, main_room_of)
	local mode = mode_to_start(event.stanza);
	local main_room = mode and main_room_of(jid.bare(event.stanza.attr.to));
	if not main_room then return; end
	if not forbids(main_room, mode == "file" and "recordingEnabled" or "liveStreamingEnabled") then return; end
	event.origin.send(st.error_reply(event.stanza, "auth", "forbidden", "This meeting is not to be recorded or streamed"));
	return true;
end

-- Also the messages of visitors, who are no occupants here. Without a body it is no line in the chat.
local function on_groupchat(event, main_room_of)
	local stanza, main_room = event.stanza, main_room_of(event.room.jid);
	if not main_room or not forbids(main_room, "chatEnabled") then return; end
	if not stanza:get_child("body") or people.is_exempt(stanza.attr.from) then return; end
	module:send(st.error_reply(stanza, "cancel", "not-allowed", "There is no chat in this meeting"));
	return true;
end

-- mod_muc has already put the nick of the sender in.
local function on_private_message(event, main_room_of)
	local room, stanza, main_room = event.room, event.stanza, main_room_of(event.room.jid);
	if not main_room or not (forbids(main_room, "privateMessagesEnabled") or forbids(main_room, "chatEnabled")) then return; end
	local sender = room:get_occupant_by_nick(stanza.attr.from);
	if not stanza:get_child("body") or not sender or people.is_exempt(sender.bare_jid) then return; end
	local reply = st.error_reply(stanza, "cancel", "not-allowed", "There are no private messages in this meeting");
	reply.attr.to = event.origin.full_jid or sender.jid;
	module:send(reply);
	return false;
end

local function hooks(main_room_of)
	local function with_config(handler)
		return function (event) return handler(event, main_room_of); end;
	end
	return {
		{ "iq/full", 2, with_config(on_iq) }; -- before mod_muc, at -2
		{ "muc-occupant-groupchat", 60, with_config(on_groupchat) }; -- before mod_muc, at 50
		{ "muc-private-message", 60, with_config(on_private_message) };
	};
end

-- Jitsi's module finds the room in this way too.
local function room_of_session(session)
	local name, tenant = session.jitsi_web_query_room, session.jitsi_web_query_prefix;
	if not name then return nil; end
	if tenant and tenant ~= "" then name = "["..tenant.."]"..name; end
	return rooms.muc() and rooms.of(name.."@"..module.host);
end

local function on_av_moderation(event)
	local command = event.stanza:get_child("av_moderation");
	local room = command and command.attr.enable == "true" and room_of_session(event.origin);
	if not room or not forbids(room, "avModerationEnabled") then return; end
	event.origin.send(st.error_reply(event.stanza, "cancel", "not-allowed", "There is no A/V moderation in this meeting"));
	return true;
end

local function watch_component(name)
	if configmanager.get(name, "component_module") ~= "av_moderation_component" or not prosody.hosts[name] then return; end
	if configmanager.get(name, "muc_component") ~= module.host then return; end
	module:hook_object_event(prosody.hosts[name].events, "message/host", on_av_moderation, 1);
end

local function start()
	for name in pairs(prosody.hosts) do watch_component(name); end
	module:hook_global("host-activated", watch_component); -- it may come later
end

local function new(need)
	rooms, people, data_names = need.rooms, need.people, need.settings.data_names;
	return { forbids = forbids; mode_to_start = mode_to_start; hooks = hooks; start = start };
end

return { version = "0.2.0"; new = new };
