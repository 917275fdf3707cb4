-- Who gets into a room that only members get into.
--
-- The lock is the config's, Prosody's default (muc_room_default_members_only), or somebody else's: a lobby, another
-- module, a moderator. The default is taken back from a room once its config is known. A user who was allowed becomes a
-- member where the lock is the config's. A lock of somebody else is never opened, and nobody is led past it.

local st = require "util.stanza";

local rooms, locks, setup; -- handed over by start.lib.lua

local function is_option_set()
	return module:get_option_boolean("muc_room_default_members_only");
end

-- Right after mod_muc has set its defaults.
local function on_pre_create(event)
	locks.watch(event.room);
end

-- Whether jicofo made the room while there was no gate. Then the room has no config yet, and nobody is in it who could
-- have closed it: only those who need no decision. A room that is empty was made by other code.
local function is_from_before(room)
	local data = room._data;
	return room:get_members_only() and not (locks.is_watched(room) or data.lobbyroom or data.muc_webhook_config)
		and not room:get_persistent() and room:has_occupant() and rooms.real_occupants(room) == 0;
end

-- When a gate starts that goes on with nothing of an earlier one.
local function adopt_rooms_from_before()
	if not is_option_set() then return; end
	for room in rooms.muc().live_rooms() do
		if is_from_before(room) then
			locks.adopt(room);
			locks.note(room, "members_only", nil);
		end
	end
end

-- Who is in the room already must read its configuration again: jicofo sends no visitors into a members-only room.
local function announce(room)
	if not room:has_occupant() then return; end
	room:broadcast_message(st.message({ type = "groupchat", from = room.jid })
		:tag("x", { xmlns = "http://jabber.org/protocol/muc#user" }):tag("status", { code = "104" }));
end

-- Without `settings` the room is open although nobody could say how it is to be: see muc_webhook_fail_open.
local function lift(room, settings)
	if not room:get_members_only() or room._data.lobbyroom then return; end
	if settings and setup.wants_members_only(settings) then return; end
	if locks.owner_of(room, "members_only") == "default" and locks.open(room, "members_only") then announce(room); end
end

local function is_sealed_by_config(room)
	local record = rooms.record_of(room);
	return record ~= nil and setup.is_sealed(record.settings) and room:get_members_only() == true
		and not room._data.lobbyroom and locks.owner_of(room, "members_only") == "config";
end

-- A lobby that is there for those who have to wait is none for the others.
local function is_for_others(room)
	local record = rooms.record_of(room);
	if record and record.settings.lobbyEnabled then return false; end -- it has been wanted since
	return room:get_members_only() and locks.owner_of(room, "members_only") == "waiting";
end

-- The role was worked out before this hook runs, so it is set as well.
local function make_member(event)
	local room, occupant = event.room, event.occupant;
	if not room:get_members_only() then return; end
	if room:get_affiliation(occupant.bare_jid) or not (is_sealed_by_config(room) or is_for_others(room)) then return; end
	setup.grant(room, occupant.bare_jid, "member");
	occupant.role = room:get_default_role("member");
end

local function new(need)
	rooms, locks, setup = need.rooms, need.locks, need.setup;
	return {
		on_pre_create = on_pre_create; lift = lift; adopt_rooms_from_before = adopt_rooms_from_before; announce = announce;
		is_sealed_by_config = is_sealed_by_config; make_member = make_member;
	};
end

return { version = "0.2.0"; new = new };
