-- Beside Jitsi's muc_wait_for_host, which holds guests back in a lobby of its own until a host has come.
--
-- It makes no lobby for a room that is members-only already, and it opens the room and removes any lobby when the host
-- comes. So the config's own seal is out of its sight while it decides about a join, and what the config has locked is
-- locked again once the host is in.

local host, rooms, setup, members_only; -- handed over by start.lib.lua

local function settings_of(room)
	local record = rooms.record_of(room);
	return record and record.settings;
end

local function seal_again(room)
	local settings = settings_of(room);
	if settings and setup.is_sealed(settings) then setup.close(room, "members_only", true); end
end

local function lock_again(room)
	room.muc_webhook_host_came = nil;
	local settings = settings_of(room);
	if not settings then return; end
	seal_again(room);
	if settings.persistent then setup.close(room, "persistent", true); end
	if settings.lobbyEnabled then setup.open_lobby(room); end
end

-- Each pre-join, with all of its handlers: one of them may end it early or fail.
local function around_pre_join(handlers, name, event)
	local room = event.room;
	if room.muc_webhook_host_came then lock_again(room); end -- that host was turned away later on
	if not host.modules.muc_wait_for_host or not members_only.is_sealed_by_config(room) then
		return handlers(name, event);
	end
	room.muc_webhook_seal_hidden = true;
	room._data.members_only = nil;
	local ok, result = xpcall(handlers, debug.traceback, name, event);
	if room.muc_webhook_seal_hidden then -- nobody has got as far as `show_seal`
		room.muc_webhook_seal_hidden = nil;
		room._data.members_only = true;
	end
	if not ok then error(result, 0); end
	return result;
end

-- After wait_for_host, and before members-only decides.
local function show_seal(event)
	local room = event.room;
	if room.muc_webhook_seal_hidden then
		room.muc_webhook_seal_hidden = nil;
		room._data.members_only = true;
	elseif room.muc_webhook_host_came then
		seal_again(room);
	end
end

local function on_host_arrived(room_jid)
	local room = rooms.of(room_jid);
	if room then room.muc_webhook_host_came = true; end
end

local function on_joined(event)
	if event.room.muc_webhook_host_came then lock_again(event.room); end
end

local function new(need)
	host, rooms = prosody.hosts[module.host], need.rooms;
	setup, members_only = need.setup, need.members_only;
	return {
		around_pre_join = around_pre_join; show_seal = show_seal; on_host_arrived = on_host_arrived; on_joined = on_joined;
	};
end

return { version = "0.2.0"; new = new };
