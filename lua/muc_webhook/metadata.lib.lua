-- What Jitsi's pages and modules learn of a config from the room's metadata (mod_room_metadata_component).
--
--   roomConfig    the settings for the frontend, as in ROOM_CONFIG; nobody else can write it
--   startMuted    whether newcomers are muted: set once in the life of a room, and only if nobody has said yet
--   permissions   who may write in the chat and make polls: only tightened

local jid = require "util.jid";

local rooms, forbidden, config, data_names, main_room_of; -- handed over by start.lib.lua

-- lib-jitsi-meet replaces the entities of HTML before it reads the JSON, which is Jitsi's here. So an entity is written
-- in a way of which the replacing makes it again.
local function with_entities(value)
	if type(value) == "string" then return (value:gsub("&(#?%w+;)", "&amp;%1")); end
	if type(value) ~= "table" then return value; end
	local copy = setmetatable({}, getmetatable(value));
	for key, member in pairs(value) do copy[with_entities(key)] = with_entities(member); end
	return copy;
end

local room_configs = setmetatable({}, { __mode = "k" }); -- settings for the frontend -> what of them is in the metadata

local function room_config_of(frontend)
	room_configs[frontend] = room_configs[frontend] or config.all_of(frontend, with_entities);
	return room_configs[frontend];
end

local muted_by = { muteOnJoin = "audio"; videoOffOnJoin = "video" };
local restricted_by = { chatEnabled = "groupChatRestricted"; pollsEnabled = "pollCreationRestricted" };

-- The data of the room says which settings it has had before.
local function mute(room, metadata, frontend)
	for setting, media in pairs(muted_by) do
		if frontend[setting] == true and room._data[data_names[setting]] ~= true then
			metadata.startMuted = metadata.startMuted or {};
			if metadata.startMuted[media] == nil then metadata.startMuted[media] = true; end
		end
	end
end

-- `forbids(subject, setting)` says what is forbidden.
local function restrict(metadata, forbids, subject)
	for setting, permission in pairs(restricted_by) do
		if forbids(subject, setting) then
			if type(metadata.permissions) ~= "table" then metadata.permissions = {}; end
			metadata.permissions[permission] = true;
		end
	end
end

-- A breakout room has metadata of its own, in which its users look.
local function copy(main_room, breakout_room, forbids, subject)
	breakout_room.jitsiMetadata = breakout_room.jitsiMetadata or {};
	breakout_room.jitsiMetadata.roomConfig = main_room.jitsiMetadata and main_room.jitsiMetadata.roomConfig;
	restrict(breakout_room.jitsiMetadata, forbids, subject);
end

local function denies(frontend, setting)
	return frontend[setting] == false;
end

local function tell(room)
	if room:has_occupant() then module:fire_event("room-metadata-changed", { room = room }); end
end

-- Before the config is applied, so at each join: only a config that the room object does not have yet is written. Who
-- comes in gets all of the metadata; who is in must be told.
local function write(room, frontend)
	if room.muc_webhook_frontend == frontend then return; end
	room.muc_webhook_frontend = frontend;
	local metadata = room.jitsiMetadata or {};
	room.jitsiMetadata = metadata;
	metadata.roomConfig = room_config_of(frontend);
	mute(room, metadata, frontend);
	restrict(metadata, denies, frontend);
	tell(room);
	for _, breakout_room in ipairs(rooms.breakout_rooms_of(room)) do
		copy(room, breakout_room, denies, frontend);
		tell(breakout_room);
	end
end

-- The same room as another object, without the metadata.
local function on_restored(event)
	local record = rooms.record_of(event.room);
	if record then write(event.room, record.frontend); end
end

-- Jitsi's module has just made the metadata.
local function on_breakout_room(room)
	local main_room = main_room_of(room.jid);
	if not main_room then return; end
	copy(main_room, room, forbidden.forbids, main_room);
end

-- When somebody in the room, or in a breakout room, writes. False refuses, nil leaves it to others, which allow what
-- moderators write. Jitsi's modules look for members in the permissions, whatever they are.
local function on_write(event)
	local key, data = event.key, event.data;
	if key == "roomConfig" then return false; end
	local room_jid = event.room.jid;
	local main_room = jid.host(room_jid) == module.host and event.room or main_room_of(room_jid);
	if not main_room then return nil; end
	if key == "recording" and type(data) == "table" and data.isTranscribingEnabled
		and forbidden.forbids(main_room, "closedCaptionsEnabled") then
		return false;
	end
	if key ~= "permissions" or event.actor.role ~= "moderator" then return nil; end
	if type(data) ~= "table" then return false; end
	local written = { permissions = data };
	restrict(written, forbidden.forbids, main_room);
	return written.permissions;
end

-- The virtual host on which Jitsi asks.
local function users_host()
	return module:get_option_string("muc_mapper_domain_base") or module.host:gsub("^[^%.]+%.", "");
end

local function watch_host(name)
	if name ~= users_host() or not prosody.hosts[name] then return; end
	module:hook_object_event(prosody.hosts[name].events, "jitsi-metadata-allow-moderation", on_write, 10);
end

-- `find` gives the main room for the JID of a breakout room.
local function start(find)
	main_room_of = find;
	watch_host(users_host());
	module:hook_global("host-activated", watch_host); -- it may come later
end

local function new(need)
	rooms, forbidden, config, data_names = need.rooms, need.forbidden, need.config, need.settings.data_names;
	return { start = start; write = write; on_restored = on_restored; on_breakout_room = on_breakout_room };
end

return { version = "0.2.0"; new = new };
