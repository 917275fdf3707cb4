-- What a room's config forbids is refused here.
--
-- That is recordings, live streams, captions, chat, private messages, polls and A/V moderation. It holds for moderators
-- too. What was forbidden is read from the room's data, where it stays as long as the room does, also while this module
-- or mod_muc is reloaded.

local configmanager = require "core.configmanager";
local jid = require "util.jid";
local st = require "util.stanza";

local xmlns_jibri = "http://jitsi.org/protocol/jibri";
local xmlns_rayo = "urn:xmpp:rayo:1";

local rooms, people, visitors, data_names; -- handed over by start.lib.lua

local function forbids(room, setting)
	return room._data[data_names[setting]] == false;
end

-- The mode of the recording ("file" or "stream") that a stanza asks to start, or nil. With an address, it is a call by
-- SIP; jicofo takes a blank one for none.
local function mode_to_start(stanza)
	local jibri = stanza.attr.type == "set" and stanza:get_child("jibri", xmlns_jibri);
	if not jibri or (jibri.attr.action or ""):lower() ~= "start" then return nil; end
	if (jibri.attr.sip_address or ""):find("%w") then return nil; end
	return (jibri.attr.recording_mode or ""):lower() == "file" and "file" or "stream";
end

-- Jitsi makes the captions from a transcription, for which it calls a transcriber.
local function calls_transcriber(stanza)
	local dial = stanza.attr.type == "set" and stanza:get_child("dial", xmlns_rayo);
	return dial and (dial.attr.to or ""):lower() == "jitsi_meet_transcribe";
end

local function setting_for(stanza)
	local mode = mode_to_start(stanza);
	if mode then return mode == "file" and "recordingEnabled" or "liveStreamingEnabled"; end
	return calls_transcriber(stanza) and "closedCaptionsEnabled" or nil;
end

-- `main_room_of` gives the room that has the config, for the JID of that room or of one of its breakout rooms.
local function on_iq(event, main_room_of)
	local setting = setting_for(event.stanza);
	local main_room = setting and main_room_of(jid.bare(event.stanza.attr.to));
	if not main_room or not forbids(main_room, setting) then return; end
	local text = "This meeting is not to be recorded, streamed or transcribed";
	event.origin.send(st.error_reply(event.stanza, "auth", "forbidden", text));
	return true;
end

-- Of whatever namespace, as Jitsi's page and components look for it.
local function has_child(stanza, name)
	for _, child in ipairs(stanza.tags) do
		if child.name == name then return true; end
	end
	return false;
end

-- No error is answered with another one.
local function refuse(stanza, text, to)
	if stanza.attr.type == "error" then return; end
	local reply = st.error_reply(stanza, "cancel", "not-allowed", text);
	reply.attr.to = to or reply.attr.to;
	module:send(reply);
end

-- Also the messages of visitors, who are no occupants here. Without a body it is no line in the chat.
local function on_groupchat(event, main_room_of)
	local stanza, main_room = event.stanza, main_room_of(event.room.jid);
	if not main_room or not forbids(main_room, "chatEnabled") then return; end
	if not has_child(stanza, "body") or people.is_exempt(stanza.attr.from) then return; end
	refuse(stanza, "There is no chat in this meeting");
	return true;
end

local no_private_messages = "There are no private messages in this meeting";

local function forbids_private(main_room)
	return forbids(main_room, "privateMessagesEnabled") or forbids(main_room, "chatEnabled");
end

-- The main Prosody does not see what its participants write to a visitor.
local function may_write_privately(bare_jid)
	return people.is_exempt(bare_jid) and not visitors.is_mirrored(jid.host(bare_jid));
end

-- mod_muc has already put the nick of the sender in.
local function on_private_message(event, main_room_of)
	local room, stanza, main_room = event.room, event.stanza, main_room_of(event.room.jid);
	if not main_room or not forbids_private(main_room) or not has_child(stanza, "body") then return; end
	local sender = room:get_occupant_by_nick(stanza.attr.from);
	if not sender or may_write_privately(sender.bare_jid) then return; end
	refuse(stanza, no_private_messages, event.origin.full_jid or sender.jid);
	return false;
end

-- Jitsi's mod_visitors hands the private messages of visitors on, past mod_muc.
local function on_message_from_outside(event, main_room_of)
	local stanza = event.stanza;
	local room = rooms.muc() and rooms.muc().get_room_from_jid(jid.bare(stanza.attr.to));
	local main_room = room and main_room_of(room.jid);
	if not main_room or room:get_occupant_jid(stanza.attr.from) then return; end
	if not forbids_private(main_room) or not has_child(stanza, "body") then return; end
	refuse(stanza, no_private_messages);
	return true;
end

local function hooks(main_room_of)
	local function with_config(handler)
		return function (event) return handler(event, main_room_of); end;
	end
	return {
		{ "iq/full", 2, with_config(on_iq) }; -- before mod_muc, at -2
		{ "muc-occupant-groupchat", 60, with_config(on_groupchat) }; -- before mod_muc, at 50
		{ "muc-private-message", 110, with_config(on_private_message) }; -- before Jitsi's fmuc, at 100
		{ "message/full", 20, with_config(on_message_from_outside) }; -- before Jitsi's visitors, at 10
	};
end

-- Jitsi's module finds the room in this way too.
local function room_of_session(session)
	local name, tenant = session.jitsi_web_query_room, session.jitsi_web_query_prefix;
	if not name then return nil; end
	if tenant and tenant ~= "" and tenant ~= module:get_option_string("muc_mapper_domain_base") then
		name = "["..tenant.."]"..name;
	end
	return rooms.muc() and rooms.of(name.."@"..module.host);
end

-- What Jitsi's components are asked for, by a message: the module of the component -> the setting that can forbid it, and
-- whether a message asks for it.
local component_settings = {
	av_moderation_component = {
		setting = "avModerationEnabled"; text = "There is no A/V moderation in this meeting";
		is_wanted = function (stanza)
			local command = stanza:get_child("av_moderation");
			return command and command.attr.enable == "true";
		end;
	};
	polls_component = {
		setting = "pollsEnabled"; text = "There are no polls in this meeting";
		is_wanted = function (stanza) return has_child(stanza, "json-message"); end;
	};
};

local function guard_component(name, guarded)
	module:hook_object_event(prosody.hosts[name].events, "message/host", function (event)
		local room = guarded.is_wanted(event.stanza) and room_of_session(event.origin);
		if not room or not forbids(room, guarded.setting) then return; end
		refuse(event.stanza, guarded.text);
		return true;
	end, 1);
end

local function watch_component(name)
	local guarded = component_settings[configmanager.get(name, "component_module")];
	if not guarded or not prosody.hosts[name] then return; end
	local muc_host = configmanager.get(name, "muc_component"); -- the polls have none
	if muc_host == nil or muc_host == module.host then guard_component(name, guarded); end
end

local function start()
	for name in pairs(prosody.hosts) do watch_component(name); end
	module:hook_global("host-activated", watch_component); -- it may come later
end

local function new(need)
	rooms, people, visitors, data_names = need.rooms, need.people, need.visitors, need.settings.data_names;
	return { forbids = forbids; mode_to_start = mode_to_start; hooks = hooks; start = start };
end

return { version = "0.2.0"; new = new };
