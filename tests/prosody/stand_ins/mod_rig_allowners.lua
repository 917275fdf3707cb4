-- What Jitsi's muc_allowners does: everybody becomes an owner, after the join was announced.
module:hook("muc-occupant-joined", function (event)
	local room, occupant = event.room, event.occupant;
	if occupant.bare_jid == "focus@auth.localhost" then return; end
	room:set_affiliation(true, occupant.bare_jid, "owner");
end, 2);
