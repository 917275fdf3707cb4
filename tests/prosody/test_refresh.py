"""The order `refresh`: what is new in a room's config is applied to the living room, and no lock of others opens."""

from __future__ import annotations

from typing import Any

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.ordering import SIDE_ROOMS, begin, in_room, new_id, order, outcomes, put_out
from tests.prosody.test_locks import locks_of, submit
from tests.rig.answers import hold, reply
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def refresh(prosody: Server, room: str, **fields: Any) -> list[str]:
    """Has the room refreshed; gives the names of the settings that have changed."""
    outcome = await order(prosody, "refresh", room, **fields)
    assert (outcome["status"], outcome["refreshed"]) == ("done", True)
    changed: list[str] = outcome["changed"]
    return changed


async def statuses_of(prosody: Server, id: str) -> list[str]:
    return [each["status"] for each in await outcomes(prosody, id)]


LOBBY = ("rig_lobby", "muc_webhook")


def configure(prosody: Server, room: str, config: dict[str, Any]) -> None:
    prosody.backend.on("room-created", reply(config), room=room)


async def test_all_get_the_new_config(prosody: Server, room: str) -> None:
    configure(prosody, room, {"chatEnabled": True})
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        configure(prosody, room, {"chatEnabled": False})
        assert await refresh(prosody, room) == ["chatEnabled"]
        for client in (ann, bob):
            await client.ping()
            assert client.json_messages(room) == [{"type": "ROOM_CONFIG", "config": {"chatEnabled": False}}]


async def test_a_new_config_that_comes_with_the_order_is_applied_without_a_question(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await order(prosody, "refresh", room, configuration={"password": "s3", "chatEnabled": False})
        assert str((await bob.join(room, nick="bob")).error) == "auth/not-authorized"
        assert (await bob.join(room, nick="bob", password="s3")).config == {"chatEnabled": False}
        assert len(prosody.backend.asked("room-created", room)) == 1


async def test_other_plugins_no_longer_find_a_setting_that_the_config_lacks(prosody: Server, room: str) -> None:
    configure(prosody, room, {"chatEnabled": False, "pollsEnabled": False})
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await in_room(prosody, room, 'room._data.audio_quality = "theirs"')
        configure(prosody, room, {"pollsEnabled": False})
        assert await refresh(prosody, room) == ["chatEnabled"]
        data = "local d = room._data; return { chat = d.chat_enabled; polls = d.polls_enabled; a = d.audio_quality }"
        assert await in_room(prosody, room, data) == {"polls": False, "a": "theirs"}


async def test_the_configs_own_locks_follow_it(prosody: Server, room: str) -> None:
    locked = {"password": "first", "hidden": True, "membersOnly": True, "persistent": True, "moderated": True}
    configure(prosody, room, locked)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann", password="first")
        everything = await locks_of(prosody, room)
        assert [name for name, is_locked in everything.items() if not is_locked] == ["lobby"]
        configure(prosody, room, {**locked, "password": "second"})
        await order(prosody, "refresh", room)
        assert (await locks_of(prosody, room))["password"] == "second"
        configure(prosody, room, {})
        assert await refresh(prosody, room) == sorted(locked)
        assert not any((await locks_of(prosody, room)).values())


@pytest.mark.parametrize("config", [{}, {"password": "", "membersOnly": False, "hidden": False, "persistent": False}])
async def test_the_locks_of_a_moderator_and_of_other_modules_stay(
    prosody: Server, room: str, config: dict[str, Any]
) -> None:
    configure(prosody, room, {"password": "first", "chatEnabled": True})
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann", password="first")
        await submit(ann, room, membersonly="1", roomsecret="own")
        await in_room(prosody, room, "room:set_hidden(true); room:set_persistent(true)")
        configure(prosody, room, config)
        await refresh(prosody, room)
        locks = await locks_of(prosody, room)
        assert (locks["password"], locks["members_only"], locks["hidden"], locks["persistent"]) == (
            "own",
            True,
            True,
            True,
        )
        await in_room(prosody, room, "room:set_persistent(false)")


async def test_what_is_not_new_in_the_config_is_not_applied_again(prosody: Server, room: str) -> None:
    configure(prosody, room, {"password": "first", "chatEnabled": True})
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann", password="first")
        await submit(ann, room, roomsecret="")
        configure(prosody, room, {"password": "first", "chatEnabled": False})
        await order(prosody, "refresh", room)
        assert (await locks_of(prosody, room))["password"] == ""


async def test_a_lobby_opens_and_closes_with_the_config(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY, extra=SIDE_ROOMS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        configure(prosody, room, {"lobbyEnabled": True})
        await order(prosody, "refresh", room)
        assert str((await bob.join(room, nick="bob")).error) == "auth/registration-required"
        configure(prosody, room, {"lobbyEnabled": True, "membersOnly": False})
        await order(prosody, "refresh", room)
        assert str((await bob.join(room, nick="bob")).error) == "auth/registration-required"
        configure(prosody, room, {"lobbyEnabled": False})
        await order(prosody, "refresh", room)
        assert (await bob.join(room, nick="bob")).joined
        assert await prosody.occupants(room) == ["ann", "bob"]


async def test_a_lobby_that_closes_leaves_the_room_to_members_if_the_config_says_so(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(muc_modules=LOBBY, extra=SIDE_ROOMS)
    configure(prosody, room, {"lobbyEnabled": True})
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await eventually(lambda: in_room(prosody, room, "return room._data.lobbyroom ~= nil"), True)
        configure(prosody, room, {"lobbyEnabled": False, "membersOnly": True})
        await order(prosody, "refresh", room)
        locks = await locks_of(prosody, room)
        assert (locks["lobby"], locks["members_only"]) == (False, True)


async def test_the_lobby_of_a_moderator_stays(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY, extra=SIDE_ROOMS)
    configure(prosody, room, {"lobbyEnabled": True})
    async with Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await eventually(lambda: in_room(prosody, room, "return room._data.lobbyroom ~= nil"), True)
        await in_room(prosody, room, 'room:set_affiliation(true, "focus@auth.localhost", "owner")')
        await submit(focus, room, membersonly="0")
        await submit(focus, room, membersonly="1")
        configure(prosody, room, {"lobbyEnabled": False})
        await order(prosody, "refresh", room)
        locks = await locks_of(prosody, room)
        assert (locks["lobby"], locks["members_only"]) == (True, True)


async def test_the_limits_follow_the_config(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_duration_warning": 0})
    configure(prosody, room, {"maxParticipants": 1, "maxDurationMinutes": 60})
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        assert (await bob.join(room, nick="bob")).denied
        configure(prosody, room, {"maxParticipants": 2})
        await order(prosody, "refresh", room)
        assert (await bob.join(room, nick="bob")).joined
        configure(prosody, room, {"maxDurationMinutes": 0.001})
        await order(prosody, "refresh", room)
        _, reason = await put_out(ann, room)
        assert "limit of 0.001 minutes" in str(reason)


async def test_a_longer_meeting_is_warned_of_its_end_once_more(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_duration_warning": 1})
    configure(prosody, room, {"maxDurationMinutes": 1.01})
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await ann.expect(lambda s: "MEETING_ENDING" in "".join(s.itertext()))
        configure(prosody, room, {"maxDurationMinutes": 1.05})
        await order(prosody, "refresh", room)
        await ann.expect(lambda s: "MEETING_ENDING" in "".join(s.itertext()))


async def test_moderators_follow_the_config(prosody: Server, room: str) -> None:
    configure(prosody, room, {"moderators": ["ann@auth.localhost", "t-cat"]})
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
        Client.connect(prosody, domain=prosody.token_domain) as cat,
        Client.connect(prosody, domain=prosody.token_domain) as dan,
    ):
        await cat.set_token("c", id="t-cat")
        await dan.set_token("d", id="t-dan")
        await first.join(room, nick="first")
        for client, nick in ((ann, "ann"), (bob, "bob"), (cat, "cat"), (dan, "dan")):
            await client.join(room, nick=nick)
        await in_room(prosody, room, 'room:set_affiliation(true, "eve@auth.localhost", "owner")')
        configure(prosody, room, {"moderators": ["bob@auth.localhost", "t-dan"]})
        await order(prosody, "refresh", room)
        roles = """local t = {}; for nick, occupant in room:each_occupant() do
            t[nick:match("/(.*)")] = occupant.role end return t"""
        wanted = {"first": "moderator", "ann": "participant", "bob": "moderator"}
        assert await in_room(prosody, room, roles) == {**wanted, "cat": "participant", "dan": "moderator"}
        assert await in_room(prosody, room, 'return room:get_affiliation("eve@auth.localhost")') == "owner"


@pytest.mark.parametrize(
    ("answer", "headers"),
    [
        (reply({}, status=500), {}),
        (reply({"reason": "No such room"}, status=404), {}),
        (reply({"password": []}), {}),
        (reply({}), {"Cache-Status": "prosody-sidecar; fwd=miss; detail=default"}),
        (reply({}), {"Cache-Status": "prosody-sidecar; hit; ttl=-340; detail=stale-if-error"}),
    ],
)
async def test_without_a_new_answer_nothing_changes(
    prosody: Server, room: str, answer: Any, headers: dict[str, str]
) -> None:
    configure(prosody, room, {"password": "first", "chatEnabled": True})
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann", password="first")
        prosody.backend.on("room-created", answer, room=room)
        prosody.backend.headers = headers
        try:
            outcome = await order(prosody, "refresh", room)
        finally:
            prosody.backend.headers = {}
        assert outcome["status"] == "failed"
        assert outcome["error"].startswith("no new config: ")
        assert (await bob.join(room, nick="bob", password="first")).config == {"chatEnabled": True}
    prosody.log_is_read()


async def test_of_two_orders_the_later_one_counts(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        slow = hold(reply({"password": "old"}))
        prosody.backend.on("room-created", slow, room=room)
        first = new_id()
        await begin(prosody, "refresh", room, id=first)
        await prosody.backend.received("room-created", room, count=2)
        configure(prosody, room, {"password": "new"})
        await refresh(prosody, room)
        slow.release()
        await eventually(lambda: statuses_of(prosody, first), ["done"])
        assert (await locks_of(prosody, room))["password"] == "new"


async def test_an_order_that_comes_again_while_it_is_carried_out_asks_once(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        slow = hold(reply({"chatEnabled": False}))
        prosody.backend.on("room-created", slow, room=room)
        id = new_id()
        await begin(prosody, "refresh", room, id=id)
        await begin(prosody, "refresh", room, id=id)
        await prosody.backend.received("room-created", room, count=2)
        slow.release()
        await eventually(lambda: statuses_of(prosody, id), ["done", "done"])
        assert len(prosody.backend.asked("room-created", room)) == 2


async def test_a_meeting_that_ends_meanwhile_is_not_made_again(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        slow = hold(reply({"password": "old"}))
        prosody.backend.on("room-created", slow, room=room)
        id = new_id()
        await begin(prosody, "refresh", room, id=id)
        await prosody.backend.received("room-created", room, count=2)
        await ann.leave(room, "ann")
        configure(prosody, room, {})
        await ann.join(room, nick="ann")
        slow.release()

        await eventually(lambda: statuses_of(prosody, id), ["absent"])
        assert (await locks_of(prosody, room))["password"] == ""


async def test_a_room_whose_config_is_still_asked_for_gets_the_new_one(prosody: Server, room: str) -> None:
    slow = hold(reply({"password": "old"}))
    prosody.backend.on("room-created", slow, room=room)
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as ann:
        await focus.join(room, nick="focus")
        await ann.begin_join(room, "ann", password="new")
        await prosody.backend.received("validate-access", room)
        await prosody.backend.received("room-created", room)
        configure(prosody, room, {"password": "new"})
        await refresh(prosody, room)
        assert (await ann.await_join(room, within=2)).joined
        slow.release()
        await ann.ping()
        assert (await locks_of(prosody, room))["password"] == "new"


async def test_a_reload_in_the_middle_loses_no_order(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        slow = hold(reply({"password": "new"}))
        prosody.backend.on("room-created", slow, room=room)
        id = new_id()
        await begin(prosody, "refresh", room, id=id)
        await prosody.backend.received("room-created", room, count=2)
        await prosody.reload()
        slow.release()
        await eventually(lambda: statuses_of(prosody, id), ["done"])
        assert (await locks_of(prosody, room))["password"] == "new"
