-- Stands in for jitsi-contrib's lobby_autostart: each room has a lobby that stays.
module:hook("muc-room-pre-create", function (event)
	prosody.events.fire_event("create-persistent-lobby-room", { room = event.room });
end);
