-- Stands in for Jitsi's module of this name: guests wait in a lobby until somebody with a token has come.
local function is_host(session)
	return session ~= nil and session.auth_token ~= nil;
end

module:hook("muc-occupant-joined", function (event)
	if is_host(event.origin) then event.room:set_affiliation(true, event.occupant.bare_jid, "owner"); end
end, 2);

module:hook("muc-occupant-pre-join", function (event)
	local room, occupant = event.room, event.occupant;
	if occupant.bare_jid == "focus@auth.localhost" or room.has_host then return; end
	for _, inside in room:each_occupant() do
		if is_host(prosody.full_sessions[inside.jid]) then room.has_host = true; end
	end
	if room.has_host then return; end
	if is_host(event.origin) then
		room:set_members_only(false);
		room:set_persistent(false);
		occupant.role = room:get_default_role(room:get_affiliation(occupant.bare_jid)) or "participant";
		module:fire_event("room_host_arrived", room.jid, event.origin);
		prosody.events.fire_event("destroy-lobby-room", { room = room });
	elseif not room:get_members_only() then
		prosody.events.fire_event("create-persistent-lobby-room", { room = room });
	end
end);
