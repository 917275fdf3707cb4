-- Stands in for Jitsi's module of this name: guests wait in a lobby until somebody with an account has come.
local jid = require "util.jid";

local hosts_domain = "auth.localhost";

local function is_jicofo(bare_jid)
	return bare_jid == "focus@auth.localhost";
end

local function is_host(bare_jid)
	return jid.host(bare_jid) == hosts_domain and not is_jicofo(bare_jid);
end

module:hook("muc-occupant-joined", function (event)
	local bare_jid = event.occupant.bare_jid;
	if is_host(bare_jid) then event.room:set_affiliation(true, bare_jid, "owner"); end
end, 2);

module:hook("muc-occupant-pre-join", function (event)
	local room, occupant = event.room, event.occupant;
	if is_jicofo(occupant.bare_jid) or room.has_host then return; end
	for _, inside in room:each_occupant() do
		if is_host(inside.bare_jid) then room.has_host = true; end
	end
	if room.has_host then return; end
	if is_host(occupant.bare_jid) then
		room:set_members_only(false);
		room:set_persistent(false);
		occupant.role = room:get_default_role(room:get_affiliation(occupant.bare_jid)) or "participant";
		module:fire_event("room_host_arrived", room.jid, event.origin);
		prosody.events.fire_event("destroy-lobby-room", { room = room });
	elseif not room:get_members_only() then
		prosody.events.fire_event("create-persistent-lobby-room", { room = room });
	end
end);
