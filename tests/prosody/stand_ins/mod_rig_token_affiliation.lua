-- As Jitsi's token_affiliation: who has a token becomes owner or member, whatever affiliation there was. In a room for
-- members only, this is left to others for those who have none.
module:hook("muc-occupant-pre-join", function (event)
	local room, occupant, origin = event.room, event.occupant, event.origin;
	if not origin.auth_token then return; end
	if room:get_members_only() and not room:get_affiliation(occupant.bare_jid) then return; end
	local user = origin.jitsi_meet_context_user or {};
	local affiliation = user.moderator == true and "owner" or "member";
	room:set_affiliation(true, occupant.bare_jid, affiliation);
	if affiliation == "owner" then occupant.role = "moderator"; end
end, -3.5);
