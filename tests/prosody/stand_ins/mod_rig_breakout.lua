-- Stands in for Jitsi's breakout rooms, on their component: says globally who is about to leave one.
module:hook("muc-occupant-pre-leave", function (event)
	local main_muc = prosody.hosts["conference.localhost"].modules.muc;
	for main_room in main_muc.live_rooms() do
		if (main_room._data.breakout_rooms or {})[event.room.jid] then
			prosody.events.fire_event("jitsi-breakout-occupant-leaving", {
				room = event.room; main_room = main_room; occupant = event.occupant; stanza = event.stanza;
				session = event.origin;
			});
		end
	end
end);
