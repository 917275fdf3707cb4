"""A config locks a room, and opens no lock of anybody else: it is applied once in the life of a room."""

from __future__ import annotations

from typing import Any

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.rig.answers import hold, reply
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOMCONFIG = "http://jabber.org/protocol/muc#roomconfig"
SMALL_CACHE = {"muc_room_cache_size": 2}
OBJECTS = ["mod_muc is reloaded", "the room leaves the cache"]
"""What makes another object of a room that goes on."""

LOBBY = ("rig_lobby", "muc_webhook")
WAITS = ("muc_wait_for_host", "rig_lobby", "muc_webhook")
EVERYTHING_OPEN = {"membersOnly": False, "password": "", "hidden": False, "publicRoom": True, "persistent": False}


async def in_room(prosody: Server, room: str, code: str) -> Any:
    """Runs a piece of Lua with `room`."""
    return await prosody.module(f'local room = muc.get_room_from_jid("{room}@{prosody.muc}"); {code}')


async def locks_of(prosody: Server, room: str) -> dict[str, Any]:
    """Who is kept out, and by what."""
    locks: dict[str, Any] = await in_room(
        prosody,
        room,
        """return {
            members_only = room:get_members_only() or false; password = room:get_password() or "";
            hidden = room:get_hidden() or false; persistent = room:get_persistent() or false;
            moderated = room:get_moderated() or false; lobby = room._data.lobbyroom ~= nil;
        }""",
    )
    return locks


async def submit(client: Client, room: str, **fields: str) -> None:
    """Sends the room's form as a moderator does."""
    values = "".join(f"<field var='muc#roomconfig_{k}'><value>{v}</value></field>" for k, v in fields.items())
    form = (
        "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'>"
        f"<field var='FORM_TYPE'><value>{ROOMCONFIG}</value></field>{values}</x></query>"
    )
    assert (await client.iq("set", form, to=client.room_jid(room))).get("type") == "result"


async def make_another_object(prosody: Server, room: str, how: str) -> None:
    await in_room(prosody, room, "room.rig_is_old = true")
    if how == "mod_muc is reloaded":
        await prosody.reload("muc")
    else:
        async with Client.connect(prosody) as passer_by:
            for number in range(3):
                await passer_by.join(f"{number}-{room}")
            assert room not in await prosody.rooms()
    assert await in_room(prosody, room, "return room.rig_is_old") is None


async def refusal(client: Client, room: str, nick: str = "me") -> str:
    return str((await client.join(room, nick=nick)).error)


# -- once in the life of a room


@pytest.mark.parametrize("how", OBJECTS)
async def test_what_a_moderator_has_locked_stays_locked(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(fresh=True, options=SMALL_CACHE)
    prosody.backend.on("room-created", reply(EVERYTHING_OPEN))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        await submit(ann, room, membersonly="1", roomsecret="s3")
        await make_another_object(prosody, room, how)
        assert await refusal(eve, room, nick="eve") == "auth/registration-required"
        locks = await locks_of(prosody, room)
        assert (locks["members_only"], locks["password"]) == (True, "s3")


@pytest.mark.parametrize("how", OBJECTS)
async def test_what_a_moderator_has_opened_stays_open(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(fresh=True, options=SMALL_CACHE)
    prosody.backend.on("room-created", reply({"membersOnly": True, "password": "first"}), room=room)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann", password="first")
        await submit(ann, room, membersonly="0", roomsecret="second")
        await make_another_object(prosody, room, how)
        assert (await bob.join(room, nick="bob", password="second")).joined
        assert len(prosody.backend.asked("room-created", room)) == 1


@pytest.mark.parametrize("how", OBJECTS)
async def test_an_allowed_user_is_still_made_a_member(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(fresh=True, options=SMALL_CACHE)
    prosody.backend.on("room-created", reply({"membersOnly": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await make_another_object(prosody, room, how)
        assert (await bob.join(room, nick="bob")).affiliation == "member"


@pytest.mark.parametrize("how", OBJECTS)
async def test_the_time_limit_goes_on(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(fresh=True, options={**SMALL_CACHE, "muc_webhook_duration_warning": 0})
    prosody.backend.on("room-created", reply({"maxDurationMinutes": 0.05}), room=room)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await make_another_object(prosody, room, how)
        await ann.expect(lambda s: s.get("type") == "unavailable" and s.get("from", "").startswith(room))
        await eventually(lambda: in_room(prosody, room, "return room == nil"), True)


async def test_the_time_limit_of_a_room_that_nobody_looks_at_goes_on(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_duration_warning": 0})
    prosody.backend.on("room-created", reply({"maxDurationMinutes": 0.05}))
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await prosody.reload("muc")
        await ann.expect(lambda s: s.get("type") == "unavailable" and s.get("from", "").startswith(room))


async def test_a_room_that_ends_as_another_object_is_asked_for_again(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await prosody.reload("muc")
        await ann.leave(room, "ann")
        prosody.backend.on("room-created", reply({"chatEnabled": False}))
        assert (await ann.join(room, nick="ann")).config == {"chatEnabled": False}


async def test_a_config_that_is_new_after_a_restart_changes_only_what_is_new(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True)
    prosody.backend.on("room-created", reply({"persistent": True, "password": "first", "hidden": True}))
    async with Client.connect(prosody, user="ann") as ann:
        await ann.join(room, nick="ann", password="first")
        await submit(ann, room, roomsecret="second", publicroom="0", persistentroom="1")
        await prosody.unload()
        await prosody.load()
        prosody.backend.on(
            "room-created", reply({"persistent": True, "password": "first", "hidden": True, "moderated": True})
        )
        async with Client.connect(prosody) as bob:
            assert (await bob.join(room, nick="bob", password="second")).joined
        locks = await locks_of(prosody, room)
        assert (locks["password"], locks["moderated"], locks["hidden"]) == ("second", True, True)


async def test_a_config_takes_back_what_a_config_has_closed(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    closed = {"membersOnly": True, "hidden": True, "persistent": True, "moderated": True, "password": "x"}
    prosody.backend.on("room-created", reply(closed))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann", password="x")
        await prosody.unload()
        await prosody.load()
        prosody.backend.on("room-created", reply({**EVERYTHING_OPEN, "moderated": False}))
        assert (await bob.join(room, nick="bob", password="x")).joined
        assert await locks_of(prosody, room) == {
            "members_only": False,
            "hidden": False,
            "persistent": False,
            "moderated": False,
            "password": "",
            "lobby": False,
        }


# -- locks of others


async def test_a_config_that_opens_everything_opens_no_lock_of_another_module(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody()
    slow = hold(reply({**EVERYTHING_OPEN, "moderated": False}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await in_room(
            prosody,
            room,
            'room:set_members_only(true) room:set_password("s3") room:set_hidden(true) '
            "room:set_persistent(true) room:set_moderated(true)",
        )
        slow.release()
        await eventually(lambda: in_room(prosody, room, "return room._data.muc_webhook_config ~= nil"), True)
        assert await locks_of(prosody, room) == {
            "members_only": True,
            "hidden": True,
            "persistent": True,
            "moderated": True,
            "password": "s3",
            "lobby": False,
        }
        await in_room(prosody, room, "room:set_persistent(false)")


async def test_a_config_that_comes_late_opens_no_lock_of_a_moderator(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_fail_open": True})
    prosody.backend.on("room-created", reply({}, status=500))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        await submit(ann, room, membersonly="1", roomsecret="s3")
        prosody.backend.on("room-created", reply(EVERYTHING_OPEN))
        await prosody.module(f"""
            local record = webhook.module.save().records["{room}@conference.localhost"];
            record.asked_at = record.asked_at - 11""")
        assert await refusal(bob, room, nick="bob") == "auth/registration-required"
        await eventually(lambda: in_room(prosody, room, "return room._data.muc_webhook_config ~= nil"), True)
        assert await refusal(eve, room, nick="eve") == "auth/registration-required"
        assert (await locks_of(prosody, room))["password"] == "s3"


async def test_members_only_of_another_module_is_led_past_by_nobody(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody()
    slow = hold(reply({"membersOnly": True}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await in_room(prosody, room, "room:set_members_only(true)")
        slow.release()
        assert await refusal(ann, room, nick="ann") == "auth/registration-required"


@pytest.mark.jitsi
async def test_a_room_that_is_hidden_by_another_module_is_not_listed(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=("muc_hide_all", "muc_webhook"))
    prosody.backend.on("room-created", reply({"publicRoom": True, "hidden": False}))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        items = await ann.iq("get", "<query xmlns='http://jabber.org/protocol/disco#items'/>", to=prosody.muc)
        assert room not in str([item.get("jid") for item in items.iter()])
        assert (await locks_of(prosody, room))["hidden"] is True


async def test_a_public_room_is_listed_where_prosody_hides_by_default(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"publicRoom": True}))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        assert (await locks_of(prosody, room))["hidden"] is False


# -- Jitsi's lobbies


@pytest.mark.parametrize(
    "config", [{"membersOnly": True}, {"membersOnly": False, "persistent": False}, {"lobbyEnabled": False}], ids=str
)
async def test_a_lobby_that_starts_by_itself_lets_nobody_past(
    start_prosody: StartProsody, room: str, config: dict[str, bool]
) -> None:
    prosody = await start_prosody(muc_modules=("rig_lobby_autostart", *LOBBY))
    prosody.backend.on("room-created", reply(config))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert await refusal(ann, room, nick="ann") == "auth/registration-required"
        await focus.leave(room, "focus")
        locks = await locks_of(prosody, room)
        assert (locks["lobby"], locks["persistent"]) == (True, True), "the waiting room stays while jicofo is away"
        await in_room(prosody, room, "room:set_persistent(false) room:destroy()")


@pytest.mark.jitsi
@pytest.mark.parametrize("config", [{}, {"membersOnly": True}, {"membersOnly": True, "persistent": True}], ids=str)
async def test_a_guest_waits_for_the_host(start_prosody: StartProsody, room: str, config: dict[str, bool]) -> None:
    prosody = await start_prosody(muc_modules=WAITS)
    prosody.backend.on("room-created", reply(config))
    async with (
        Client.connect(prosody) as guest,
        Client.connect(prosody, domain=prosody.token_domain) as host,
        Client.connect(prosody, user="focus") as focus,
    ):
        await host.set_token("t", id="h")
        await focus.join(room, nick="focus")
        assert await refusal(guest, room, nick="guest") == "auth/registration-required"
        assert (await locks_of(prosody, room))["lobby"] is True
        assert (await host.join(room, nick="host")).joined
        assert (await locks_of(prosody, room)) == {
            "members_only": config.get("membersOnly", False),
            "persistent": config.get("persistent", False),
            "lobby": False,
            "hidden": True,
            "moderated": False,
            "password": "",
        }
        assert (await guest.join(room, nick="guest")).joined
        await in_room(prosody, room, "room:set_persistent(false)")


@pytest.mark.jitsi
async def test_the_configs_lobby_is_there_again_after_the_host_has_come(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=WAITS)
    prosody.backend.on("room-created", reply({"lobbyEnabled": True}))
    async with (
        Client.connect(prosody) as guest,
        Client.connect(prosody, domain=prosody.token_domain) as host,
        Client.connect(prosody, user="focus") as focus,
    ):
        await host.set_token("t", id="h")
        await focus.join(room, nick="focus")
        assert await refusal(guest, room, nick="guest") == "auth/registration-required"
        assert (await host.join(room, nick="host")).joined
        assert await refusal(guest, room, nick="guest") == "auth/registration-required"
        assert sorted(await prosody.occupants(room)) == ["focus", "host"]


@pytest.mark.jitsi
async def test_a_host_who_is_turned_away_opens_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=WAITS)
    prosody.backend.on("room-created", reply({"lobbyEnabled": True, "password": "right"}))
    async with (
        Client.connect(prosody) as guest,
        Client.connect(prosody, domain=prosody.token_domain) as host,
        Client.connect(prosody, user="focus") as focus,
    ):
        await host.set_token("t", id="h")
        await focus.join(room, nick="focus")
        assert (await host.join(room, nick="host", password="wrong")).denied
        assert str((await guest.join(room, nick="guest")).error) == "auth/registration-required"


@pytest.mark.jitsi
async def test_jicofo_learns_of_the_lobby_from_the_rooms_metadata(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, muc_modules=LOBBY)
    prosody.backend.on("room-created", reply({"lobbyEnabled": True}))
    await prosody.module("""
        host.events.add_handler("room-metadata-changed", function (event)
            prosody.rig_metadata = event.room.jitsiMetadata.lobbyEnabled;
        end)""")
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        assert await prosody.lua("return prosody.rig_metadata") is True


# -- moderated


@pytest.mark.jitsi
async def test_moderated_is_not_applied_in_a_jitsi(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, muc_modules=("muc_meeting_id", "muc_webhook"))
    prosody.backend.on("room-created", reply({"moderated": True}))
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
        Client.connect(prosody, user="focus") as focus,
    ):
        for name in (room, f"other-{room}"):
            await focus.join(name, nick="focus")
            await ann.join(name, nick="ann")
            assert (await bob.join(name, nick="bob")).role == "participant"
    assert prosody.log_of_test().count("moderated is not applied") == 1
