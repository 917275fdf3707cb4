-- Takes muc_room_default_members_only back from the rooms that a config is known for.
--
-- With that option Prosody itself refuses joins into new rooms, also while nothing of this module runs. A room that is
-- members-only just because of the option is marked when it is made, and opened once its config is known, unless the
-- config wants it closed. A lock of somebody else, such as a lobby, another module or a moderator, is never opened.

local st = require "util.stanza";

local rooms; -- handed over by start.lib.lua

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

local function is_option_set()
	return module:get_option_boolean("muc_room_default_members_only");
end

local function set_mark(room)
	room._data[mark] = true;
	watch_setter(room);
end

-- Right after mod_muc has set the option's value.
local function on_pre_create(event)
	if is_option_set() and event.room:get_members_only() then set_mark(event.room); end
end

-- Whether jicofo made the room while there was no gate. Then the room has no config yet, and nobody is in it who could
-- have closed it: only those who need no decision. A room that is empty was made by other code.
local function is_from_before(room)
	local data = room._data;
	return room:get_members_only() and not (data[mark] or data.lobbyroom or data.muc_webhook_config)
		and not room:get_persistent() and room:has_occupant() and rooms.real_occupants(room) == 0;
end

-- When a gate starts that goes on with nothing of an earlier one.
local function mark_rooms_from_before()
	if not is_option_set() then return; end
	for room in rooms.muc().live_rooms() do
		if is_from_before(room) then set_mark(room); end
	end
end

local function on_restored(event)
	if event.room._data[mark] then watch_setter(event.room); end
end

-- A form that leaves the room closed has changed nothing: some clients send all of it back.
local function on_form(event)
	if not event.value then event.room._data[mark] = nil; end
end

-- Who is in the room already must read its configuration again: jicofo sends no visitors into a members-only room.
local function announce(room)
	if not room:has_occupant() then return; end
	room:broadcast_message(st.message({ type = "groupchat", from = room.jid })
		:tag("x", { xmlns = "http://jabber.org/protocol/muc#user" }):tag("status", { code = "104" }));
end

-- Without `settings` the room is open although nobody could say how it is to be: see muc_webhook_fail_open.
local function lift(room, settings)
	local data = room._data;
	if not data[mark] then return; end
	data[mark] = nil;
	if data.lobbyroom or settings and settings.membersOnly then return; end
	if room:set_members_only(false) then announce(room); end
end

local function new(need)
	rooms = need.rooms;
	return {
		on_pre_create = on_pre_create; on_restored = on_restored; on_form = on_form; lift = lift;
		mark_rooms_from_before = mark_rooms_from_before;
	};
end

return { version = "0.2.0"; new = new };
