-- Stands in for the part of Jitsi's mod_visitors that hands the private messages of visitors to participants, past
-- mod_muc. The external component is the visitor node.
local jid = require "util.jid";

module:hook("message/full", function (event)
	local stanza = event.stanza;
	local room = module:depends("muc").get_room_from_jid(jid.bare(stanza.attr.to));
	local occupant = room and room:get_occupant_by_nick(stanza.attr.to);
	if stanza.attr.type ~= "chat" or jid.host(stanza.attr.from) ~= "component.localhost" or not occupant then return; end
	stanza.attr.from = room.jid;
	room:route_to_occupant(occupant, stanza);
	return true;
end, 10);
