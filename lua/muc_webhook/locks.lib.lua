-- Who has locked a room: the config and Prosody's defaults, or somebody else.
--
-- A config may open again only what it has closed itself, or what Prosody's defaults have closed. So whoever else calls
-- one of the setters, such as another module, or changes the room's form, is noted in the room's data, which survives
-- a reload of mod_muc and the eviction from its cache.

local rooms; -- handed over by start.lib.lua

-- Lock -> "others", "config", or "waiting" (for the lobby of those who have to wait, see lobby.lib.lua); without an
-- entry it is Prosody's default.
local noted = "muc_webhook_locks";

local names = { "password"; "hidden"; "persistent"; "moderated"; "members_only" };
local fields = {
	password = "muc#roomconfig_roomsecret"; hidden = "muc#roomconfig_publicroom";
	persistent = "muc#roomconfig_persistentroom"; moderated = "muc#roomconfig_moderatedroom";
	members_only = "muc#roomconfig_membersonly";
};

local function is_locking(value)
	return value ~= nil and value ~= false and value ~= "";
end

local function get(room, name)
	return room["get_"..name](room);
end

local function note(room, name, value)
	local owners = room._data[noted];
	if not owners then return; end
	owners[name] = is_locking(value) and "others" or nil;
	if name == "members_only" then owners.lobby = nil; end -- a lobby is the config's only until somebody changes it
end

-- The config has opened the lobby that the room has now.
local function note_lobby(room)
	if room._data[noted] then room._data[noted].lobby = "config"; end
end

-- The rooms of one mod_muc share these methods. They stay replaced when the gate is unloaded, since a lock that is set
-- meanwhile counts too; a later gate finds them.
local function watch_setters()
	local room_mt = rooms.muc().room_mt;
	room_mt.muc_webhook_note = note;
	if room_mt.muc_webhook_setters then return; end
	room_mt.muc_webhook_setters = {};
	for _, name in ipairs(names) do
		local setter = room_mt["set_"..name];
		room_mt.muc_webhook_setters[name] = setter;
		room_mt["set_"..name] = function (room, value, ...)
			room_mt.muc_webhook_note(room, name, value);
			return setter(room, value, ...);
		end;
	end
end

local function set(room, name, value)
	return rooms.muc().room_mt.muc_webhook_setters[name](room, value);
end

-- A room that has just got Prosody's defaults: whatever comes now is meant.
local function watch(room)
	room._data[noted] = {};
end

local function is_watched(room)
	return room._data[noted] ~= nil;
end

-- A room that was made in another way: its locks may be anybody's, except those that its config wanted before, as
-- was_wanted(name) says.
local function adopt(room, was_wanted)
	if is_watched(room) then return; end
	watch(room);
	for _, name in ipairs(names) do
		note(room, name, get(room, name));
		if room._data[noted][name] and was_wanted and was_wanted(name) then room._data[noted][name] = "config"; end
	end
end

-- A form is sent back whole by some clients; what it does not change is nobody's wish.
local function on_form(name)
	return function (event)
		local value = event.value;
		if name == "hidden" then value = not value; end
		if is_locking(value) and not is_locking(get(event.room, name)) then note(event.room, name, value); end
	end;
end

local function form_hooks()
	local hooks = {};
	for _, name in ipairs(names) do
		table.insert(hooks, { "muc-config-submitted/"..fields[name], 1, on_form(name) }); -- before it takes effect
	end
	return hooks;
end

local function owner_of(room, name)
	local owners = room._data[noted];
	if not owners then return "others"; end
	return owners[name] or "default";
end

local function close(room, name, value)
	adopt(room);
	local was_locked = is_locking(get(room, name));
	if not was_locked or owner_of(room, name) == "default" then room._data[noted][name] = "config"; end
	return set(room, name, value);
end

-- Whoever set a lock, from now on it is this one's.
local function take(room, name, owner)
	adopt(room);
	room._data[noted][name] = owner;
end

local owners_who_open = { config = true; default = true };

-- Returns true if that changed the room.
local function open(room, name)
	if not is_locking(get(room, name)) or not owners_who_open[owner_of(room, name)] then return false; end
	room._data[noted][name] = nil;
	return set(room, name, nil);
end

local function new(need)
	rooms = need.rooms;
	return {
		watch_setters = watch_setters; watch = watch; is_watched = is_watched; adopt = adopt; form_hooks = form_hooks;
		owner_of = owner_of; close = close; open = open; note = note; take = take;
		note_lobby = note_lobby;
	};
end

return { version = "0.2.0"; new = new };
