-- Takes muc_room_default_members_only back from the rooms that a config is known for.
--
-- With that option Prosody itself refuses joins into new rooms, also while nothing of this module runs. A room that is
-- members-only just because of the option is marked when it is made, and opened once its config is known, unless the
-- config wants it closed. A lock of somebody else, such as a lobby, another module or a moderator, is never opened.

-- In the room's data, since a reload of mod_muc makes another object of the room.
local mark = "muc_webhook_default_members_only";

-- Whoever calls the setter from now on means it.
local function watch_setter(room)
	local set_members_only = room.set_members_only;
	function room.set_members_only(self, members_only)
		self._data[mark] = nil;
		return set_members_only(self, members_only);
	end
end

-- Right after mod_muc has set the option's value.
local function on_pre_create(event)
	local room = event.room;
	if not module:get_option_boolean("muc_room_default_members_only") or not room:get_members_only() then return; end
	room._data[mark] = true;
	watch_setter(room);
end

local function on_restored(event)
	if event.room._data[mark] then watch_setter(event.room); end
end

-- A form that leaves the room closed has changed nothing: some clients send all of it back.
local function on_form(event)
	if not event.value then event.room._data[mark] = nil; end
end

-- Without `settings` the room is open although nobody could say how it is to be: see muc_webhook_fail_open.
local function lift(room, settings)
	local data = room._data;
	if not data[mark] then return; end
	data[mark] = nil;
	if not data.lobbyroom and not (settings and settings.membersOnly) then room:set_members_only(false); end
end

local function new()
	return { on_pre_create = on_pre_create; on_restored = on_restored; on_form = on_form; lift = lift };
end

return { version = "0.2.0"; new = new };
