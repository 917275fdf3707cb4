-- Sets a room of Prosody up as its config says.
--
-- Only what the config newly says is applied: `before` are the settings that the room has got already, in its life.
-- A setting that opens the room undoes what a config or Prosody's default has closed, and no lock of anybody else.

local jid = require "util.jid";
local set = require "util.set";

local none = {};

local options, config, data_names, host, locks, login_only, visitors; -- handed over by start.lib.lua

local warned_of_moderated = false;

-- An error in one setting must not keep the others from being applied.
local function try(what, room, f, ...)
	local ok, err = pcall(f, ...);
	if not ok then module:log("warn", "%s could not be applied to %s: %s", what, room.jid, err); end
	return ok and err;
end

local function call(room, method, ...)
	return try(method, room, room[method], room, ...);
end

-- An affiliation with a mark that it is ours, so that an order can take it back. The mark is in the data of the
-- affiliation, which Prosody keeps and removes with it.
local function grant(room, bare_jid, affiliation)
	local data = room._affiliation_data[bare_jid] or {};
	data.muc_webhook_granted = affiliation;
	room._affiliation_data[bare_jid] = data;
	return call(room, "set_affiliation", true, bare_jid, affiliation);
end

local function is_granted(room, bare_jid)
	local data = room._affiliation_data[bare_jid];
	return data ~= nil and data.muc_webhook_granted ~= nil and data.muc_webhook_granted == room:get_affiliation(bare_jid);
end

-- To take the affiliation away would put them out of a room that is for members only.
local function demote(room, bare_jid)
	if not is_granted(room, bare_jid) then return; end
	if room:get_members_only() then
		grant(room, bare_jid, "member");
	else
		call(room, "set_affiliation", true, bare_jid, nil);
	end
end

-- Not an affiliation that somebody else has given.
local function take_back(room, bare_jid, reason)
	if is_granted(room, bare_jid) then call(room, "set_affiliation", true, bare_jid, nil, reason); end
end

-- Whether only members get in. With a lobby it is the lobby that lets people in, and membership would lead past it.
local function is_sealed(settings)
	if settings.lobbyEnabled == true or visitors.is_node() then return false; end
	return settings.membersOnly == true or settings.isPublic == false and login_only.verifies_nobody();
end

local function wants_members_only(settings)
	if visitors.is_node() then return nil; end -- the main room says who may be more than a visitor
	if is_sealed(settings) then return true; end
	return settings.membersOnly;
end

local plain_setters = {
	{ "whois", "set_whois" }; { "allowInvites", "set_allow_member_invites" }; { "changeSubject", "set_changesubject" };
	{ "historyLength", "set_historylength" };
};

-- In a Jitsi everybody would be a visitor, and jicofo would find nobody to make the owner.
local function wants_moderated(settings)
	if settings.moderated and host.modules.muc_meeting_id then
		if not warned_of_moderated then
			module:log("warn", "The setting moderated is not applied on %s: with Jitsi's muc_meeting_id, nobody could speak",
				module.host);
			warned_of_moderated = true;
		end
		return nil;
	end
	return settings.moderated;
end

local function wants_hidden(settings)
	if settings.publicRoom == nil then return settings.hidden; end
	return settings.hidden or not settings.publicRoom;
end

-- What the settings say about each lock: closed, or open (false), or nothing.
local wants = {
	password = function (settings) return settings.password ~= "" and settings.password; end;
	persistent = function (settings) return settings.persistent; end;
	moderated = wants_moderated; hidden = wants_hidden; members_only = wants_members_only;
};
local lock_names = { "password"; "moderated"; "persistent"; "hidden"; "members_only" };

-- The switch itself throws out who is no member; but whoever is inside already was let in.
local function make_members(room)
	for _, occupant in room:each_occupant() do
		if not room:get_affiliation(occupant.bare_jid) then
			grant(room, occupant.bare_jid, "member");
		end
	end
end

local function close(room, name, value)
	if name == "members_only" then make_members(room); end
	try(name, room, locks.close, room, name, value);
end

local function apply_locks(room, settings, before, relaxes)
	if not locks.is_watched(room) then locks.adopt(room, function (name) return wants[name](before); end); end
	for _, name in ipairs(lock_names) do
		local now, was = wants[name](settings), wants[name](before);
		if now and now ~= was then
			close(room, name, now);
		elseif now == false and was ~= false or relaxes and was and not now then
			-- The creator may have brought another password than the config's, and a moderator may have set one since.
			if name ~= "password" or room:get_password() == was then try(name, room, locks.open, room, name); end
		end
	end
end

local bare_jids = setmetatable({}, { __mode = "k" }); -- list of moderators -> the bare JID of each, or false

local function bare_jids_of(list)
	if bare_jids[list] then return bare_jids[list]; end
	local bare = {};
	for i, moderator in ipairs(list) do
		bare[i] = jid.prep(jid.bare(moderator) or "");
		bare[i] = bare[i] and jid.node(bare[i]) and bare[i] or false;
	end
	bare_jids[list] = bare;
	return bare;
end

-- Calls f(room, bare JID, ...) for those in a list of moderators that are not in the other one.
local function each_new_moderator(list, other, f, room, ...)
	local known = other and set.new(other);
	for i, bare in ipairs(list and bare_jids_of(list) or none) do
		if bare and not (known and known:contains(list[i])) then f(room, bare, ...); end
	end
end

local function apply_moderators(room, settings, before, relaxes)
	each_new_moderator(settings.moderators, before.moderators, grant, room, "owner");
	if relaxes then each_new_moderator(before.moderators, settings.moderators, demote, room); end
end

local function store_part(data, part)
	for name, value in pairs(part) do
		local data_name = data_names[name];
		if data_name then data[data_name] = value; end
	end
end

-- Where other modules look for them.
local function store(room, record, earlier)
	local data, settings = room._data, record.settings;
	if data.muc_webhook_config then
		for name, data_name in pairs(data_names) do
			if earlier.frontend[name] ~= nil then data[data_name] = nil; end
		end
	end
	data.muc_webhook_config = record.text; -- as text, since Prosody's storage refuses a table that is in two places
	local common, own = config.parts_of(record.frontend);
	store_part(data, common);
	store_part(data, own);
	data.max_participants = not visitors.is_node() and settings.maxParticipants or nil;
	data.is_public = settings.isPublic;
	data.meeting_id = settings.meetingId;
end

local function apply(room, record, earlier, relaxes)
	local settings, before = record.settings, earlier.settings;
	store(room, record, earlier);
	for _, setter in ipairs(plain_setters) do
		local value = settings[setter[1]];
		if value ~= nil and value ~= before[setter[1]] then call(room, setter[2], value); end
	end
	if not visitors.is_node() then apply_moderators(room, settings, before, relaxes); end
	apply_locks(room, settings, before, relaxes);
	-- A new room is locked until its owner has configured it, which is what just happened.
	if room._data.locked and not room._data.destroyed then room._data.locked = nil; end
end

-- Jicofo learns of a lobby from the room's metadata, and whoever asks for the lobby tells it.
local function open_lobby(room)
	if room._data.lobbyroom or visitors.is_node() then return; end
	prosody.events.fire_event("create-lobby-room", { room = room });
	if room._data.lobbyroom then
		locks.note_lobby(room);
		module:fire_event("room-metadata-changed", { room = room });
	else
		module:log("warn", "%s wants a lobby, but no module answers create-lobby-room", room.jid);
	end
end

-- As users know the room: Jitsi's muc_domain_mapper writes the tenant into the domain.
local function public_jid(room_jid)
	local base = module:get_option_string("muc_mapper_domain_base");
	local tenant, name = room_jid:match("^%[([^%]]+)%](.+)@");
	if not base or not tenant then return room_jid; end
	return ("%s@%s.%s.%s"):format(name, module:get_option_string("muc_mapper_domain_prefix", "conference"), tenant, base);
end

-- Only the lobby that a config has opened. Who waits there joins the room now.
local function close_lobby(room, settings)
	if not room._data.lobbyroom or locks.owner_of(room, "lobby") ~= "config" then return; end
	prosody.events.fire_event("destroy-lobby-room", {
		room = room; newjid = public_jid(room.jid); message = "The lobby was closed.";
	});
	module:fire_event("room-metadata-changed", { room = room });
	locks.note(room, "members_only", nil);
	if wants_members_only(settings) then
		close(room, "members_only", true);
	else
		try("members_only", room, locks.open, room, "members_only");
	end
end

-- The part that needs the room to be a real one, with storage and neighbours.
local function finish(room, settings, before, relaxes)
	local title = settings.meetingTitle;
	if options.subject_from_title and title and title ~= before.meetingTitle then
		call(room, "set_subject", room.jid, title);
	end
	if settings.lobbyEnabled and not before.lobbyEnabled then
		open_lobby(room);
	elseif relaxes and before.lobbyEnabled and not settings.lobbyEnabled then
		close_lobby(room, settings);
	end
	if room:get_persistent() then room:save(true); end
end

local function new(need)
	options, data_names, host = need.options, need.settings.data_names, prosody.hosts[module.host];
	config, locks, login_only, visitors = need.config, need.locks, need.login_only, need.visitors;
	return {
		apply = apply; finish = finish; call = call; grant = grant; demote = demote; take_back = take_back;
		close = close; open_lobby = open_lobby; is_sealed = is_sealed;
		wants_members_only = wants_members_only;
	};
end

return { version = "0.2.0"; new = new };
