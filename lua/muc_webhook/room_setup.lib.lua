-- Sets a room of Prosody up as its config says.

local jid = require "util.jid";

local options, data_names; -- handed over by start.lib.lua

-- Calls a method of the room. An error in one setting must not keep the others from being applied.
local function try(room, method, ...)
	local ok, err = pcall(room[method], room, ...);
	if not ok then module:log("warn", "%s could not be applied to %s: %s", method, room.jid, err); end
end

-- Whether only members get in. With a lobby it is the lobby that lets people in, and membership would lead past it.
local function is_sealed(settings)
	return settings.membersOnly == true and settings.lobbyEnabled ~= true;
end

local simple_setters = {
	{ "password", "set_password" }; { "moderated", "set_moderated" }; { "persistent", "set_persistent" };
	{ "publicRoom", "set_public" }; { "hidden", "set_hidden" }; { "whois", "set_whois" };
	{ "allowInvites", "set_allow_member_invites" }; { "changeSubject", "set_changesubject" };
	{ "historyLength", "set_historylength" };
};

-- The switch itself throws out who is no member; but whoever is inside already was let in.
local function set_members_only(room, members_only)
	if members_only then
		for _, occupant in room:each_occupant() do
			if not room:get_affiliation(occupant.bare_jid) then
				try(room, "set_affiliation", true, occupant.bare_jid, "member");
			end
		end
	end
	try(room, "set_members_only", members_only);
end

local function apply(room, settings, frontend, text)
	local data = room._data;
	data.muc_webhook_config = text; -- as text, since Prosody's storage refuses a table that is in two places
	for name, data_name in pairs(data_names) do
		local value = frontend[name];
		if value ~= nil then data[data_name] = value; end
	end
	data.max_participants = settings.maxParticipants;
	data.max_occupants = settings.maxParticipants; -- the name that Jitsi's own module reads
	data.is_public = settings.isPublic;
	data.meeting_id = settings.meetingId;

	for _, setter in ipairs(simple_setters) do
		local value = settings[setter[1]];
		if value ~= nil then try(room, setter[2], value); end
	end
	for _, moderator in ipairs(settings.moderators or {}) do
		local bare = jid.prep(jid.bare(moderator) or "");
		if bare and jid.node(bare) then try(room, "set_affiliation", true, bare, "owner"); end
	end
	if settings.membersOnly ~= nil then set_members_only(room, settings.membersOnly); end
	-- A new room is locked until its owner has configured it, which is what just happened.
	if data.locked and not data.destroyed then data.locked = nil; end
end

-- The part that needs the room to be a real one, with storage and neighbours.
local function finish(room, settings)
	if options.subject_from_title and settings.meetingTitle then
		try(room, "set_subject", room.jid, settings.meetingTitle);
	end
	if settings.lobbyEnabled and not room._data.lobbyroom then
		prosody.events.fire_event("create-lobby-room", { room = room });
		if not room._data.lobbyroom then
			module:log("warn", "%s wants a lobby, but no module answers create-lobby-room", room.jid);
		end
	end
	if room:get_persistent() then room:save(true); end
end

local function new(need)
	options, data_names = need.options, need.settings.data_names;
	return { apply = apply; finish = finish; try = try; is_sealed = is_sealed };
end

return { version = "0.2.0"; new = new };
