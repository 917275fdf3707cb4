"""What the meeting service hears of a meeting, if it asked to."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.prosody.conftest import GATE, Server, StartProsody, eventually
from tests.rig.answers import Request, hold, reply
from tests.rig.backend import Backend
from tests.rig.xmpp import CLIENT, Client, json_message

pytestmark = pytest.mark.asyncio(loop_scope="session")

ALL = ["user-joined", "user-left", "room-destroyed", "moderator-changed"]
OPTIONS = {"muc_webhook_events": ALL}


@pytest_asyncio.fixture(loop_scope="session")
async def watched(start_prosody: StartProsody) -> Server:
    return await start_prosody(options=OPTIONS)


def events_of(prosody: Server, room: str) -> list[Request]:
    """The events of a room in the order of their arrival."""
    return [r for r in prosody.backend.requests if r.endpoint in ALL and r.room == room]


def names(events: list[Request]) -> list[str]:
    return [e.endpoint for e in events]


async def quiet(prosody: Server) -> None:
    """Waits until the module has nothing left to send."""
    await eventually(lambda: prosody.module("return webhook.module.save().queue.size"), 0)


async def test_no_event_is_sent_unless_asked_for(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
    assert events_of(prosody, room) == []


async def test_only_what_is_wanted_is_sent(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_events": ["user-left"]})
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
        await prosody.backend.received("user-left", room)
        await quiet(prosody)
    assert names(events_of(prosody, room)) == ["user-left"]


async def test_the_story_of_a_meeting(watched: Server, room: str) -> None:
    watched.backend.on("room-created", reply({"meetingId": 42}))
    async with Client.connect(watched) as ann, Client.connect(watched, domain=watched.token_domain) as bob:
        await ann.join(room, nick="ann", name="Ann Example")
        await bob.set_token("t", id="u-17", email="bob@example.com", name="Bob")
        await bob.join(room, nick="bob")
        await bob.leave(room, "bob")
        await ann.leave(room, "ann")
        await watched.backend.received("room-destroyed", room)
    events = events_of(watched, room)
    assert names(events) == ["user-joined", "user-joined", "user-left", "user-left", "room-destroyed"]
    assert [e.body["sequence"] for e in events] == [1, 2, 3, 4, 5]
    assert len({e.body["eventId"] for e in events}) == 5
    assert all(e.headers["Idempotency-Key"] == e.body["eventId"] for e in events)
    assert len({e.body["roomInstance"] for e in events}) == 1
    assert {(e.body["roomJid"], e.body["meetingId"]) for e in events} == {(f"{room}@conference.localhost", 42)}
    first, second, third = (e.body for e in events[:3])
    assert (first["userName"], first["nick"], first["guest"], first["moderator"], first["participants"]) == (
        "Ann Example",
        "ann",
        True,
        True,
        1,
    )
    assert (
        second["userId"],
        second["userEmail"],
        second["userName"],
        second["guest"],
        second["participants"],
    ) == (
        "u-17",
        "bob@example.com",
        "Bob",
        False,
        2,
    )
    assert (third["userId"], third["reason"], third["participants"]) == ("u-17", "left", 1)
    assert third["durationSeconds"] in (0, 1, 2)
    assert (events[4].body["reason"], events[4].body["cause"]) == ("all_users_left", "empty")


async def test_a_new_life_of_a_room_is_another_instance(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann:
        for count in (1, 2):
            await ann.join(room, nick="ann")
            await ann.leave(room, "ann")
            await watched.backend.received("room-destroyed", room, count=count)
    events = events_of(watched, room)
    assert [e.body["sequence"] for e in events] == [1, 2, 3, 1, 2, 3]
    assert len({e.body["roomInstance"] for e in events}) == 2


async def test_why_somebody_left(watched: Server, room: str) -> None:
    async with (
        Client.connect(watched) as ann,
        Client.connect(watched) as bob,
        Client.connect(watched) as cat,
        Client.connect(watched) as dan,
    ):
        for client, nick in ((ann, "ann"), (bob, "bob"), (cat, "cat"), (dan, "dan")):
            await client.join(room, nick=nick)
        await ann.iq(
            "set",
            "<query xmlns='http://jabber.org/protocol/muc#admin'>"
            "<item nick='bob' role='none'><reason>Behave</reason></item></query>",
            to=ann.room_jid(room),
        )
        await ann.iq(
            "set",
            "<query xmlns='http://jabber.org/protocol/muc#admin'>"
            f"<item jid='{cat.jid.partition('/')[0]}' affiliation='outcast'/></query>",
            to=ann.room_jid(room),
        )
        await dan.rst()
        await watched.backend.received("user-left", room, count=3)
        await watched.destroy(room)
        await watched.backend.received("room-destroyed", room)
    left = {e.body["nick"]: e.body for e in events_of(watched, room) if e.endpoint == "user-left"}
    assert {nick: body["reason"] for nick, body in left.items()} == {
        "bob": "kicked",
        "cat": "banned",
        "dan": "disconnected",
        "ann": "room-destroyed",
    }
    assert left["bob"]["actorJid"] == ann.jid.partition("/")[0]
    assert left["bob"]["reasonText"] == "Behave"
    end = events_of(watched, room)[-1]
    assert (end.endpoint, end.body["reason"], end.body["reasonText"]) == (
        "room-destroyed",
        "destroyed",
        "test",
    )
    assert names(events_of(watched, room)).count("room-destroyed") == 1


async def test_moderators_change_really_and_by_somebody(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        for affiliation in ("owner", "owner", "admin", "none"):
            await ann.iq(
                "set",
                "<query xmlns='http://jabber.org/protocol/muc#admin'>"
                f"<item jid='{bob.jid.partition('/')[0]}' affiliation='{affiliation}'/></query>",
                to=ann.room_jid(room),
            )
        await bob.send(f"<presence to='{bob.room_jid(room)}/bob'><show>away</show></presence>")
        await bob.ping()
        await quiet(watched)
    changes = [e.body for e in events_of(watched, room) if e.endpoint == "moderator-changed"]
    assert [(c["nick"], c["moderator"], c["role"], c["affiliation"]) for c in changes] == [
        ("bob", True, "moderator", "owner"),
        ("bob", False, "participant", "none"),
    ]
    assert {(c["actorJid"], c["actorNick"]) for c in changes} == {(ann.jid.partition("/")[0], "ann")}


async def test_a_new_nick_is_nobody_leaving(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await bob.join(room, nick="bob")
        await ann.join(room, nick="ann")
        await ann.send(f"<presence to='{ann.room_jid(room)}/anna'/>")
        await ann.leave(room, "anna")
        await watched.backend.received("user-left", room)
    events = events_of(watched, room)[:3]
    assert names(events) == ["user-joined", "user-joined", "user-left"]
    assert events[2].body["nick"] == "anna"


async def test_a_second_session_is_nobody_joining(watched: Server, room: str) -> None:
    async with (
        Client.connect(watched, user="ann") as phone,
        Client.connect(watched, user="ann") as laptop,
    ):
        await phone.join(room, nick="ann")
        await laptop.join(room, nick="ann")
        await phone.leave(room, "ann")
        await laptop.leave(room, "ann")
        await watched.backend.received("room-destroyed", room)
    assert names(events_of(watched, room)) == ["user-joined", "user-left", "room-destroyed"]


async def test_bots_and_health_checks_are_no_participants(watched: Server, room: str) -> None:
    health = f"__jicofo-health-check-{room}"
    async with (
        Client.connect(watched, user="focus") as focus,
        Client.connect(watched, user="recorder", domain="recorder.localhost") as recorder,
        Client.connect(watched) as ann,
    ):
        await focus.join(health, nick="focus")
        await focus.leave(health, "focus")
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await recorder.join(room, nick="rec")
        await recorder.leave(room, "rec")
        await ann.leave(room, "ann")
        await focus.leave(room, "focus")
        await watched.backend.received("room-destroyed", room)
    assert names(events_of(watched, room)) == ["user-joined", "user-left", "room-destroyed"]
    assert events_of(watched, health) == []


async def test_a_breakout_room_is_no_end_of_the_meeting(watched: Server, room: str) -> None:
    watched.backend.on("room-created", reply({"maxDurationMinutes": 60}))
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        await watched.module(f"""
            local main = muc.get_room_from_jid("{room}@conference.localhost");
            main._data.breakout_rooms_active = true;
            main:set_persistent(true)""")
        started = f'return muc.get_room_from_jid("{room}@conference.localhost")._data.muc_webhook_started_at'
        before = await watched.module(started)
        me = f"{ann.room_jid(room)}/ann"
        await ann.send(f"<presence type='unavailable' to='{me}'><status>switch_room</status></presence>")
        (left,) = await watched.backend.received("user-left", room)
        assert left.body["reason"] == "breakout-room"
        assert await watched.module(started) == before, "the clock goes on"
        assert (await ann.join(room, nick="ann")).joined
        await watched.backend.received("user-joined", room, count=2)
    assert "room-destroyed" not in names(events_of(watched, room))


# -- while nobody listens


async def test_events_wait_in_order_while_the_sidecar_is_away(watched: Server, room: str) -> None:
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        await watched.backend.received("user-joined", room)
        await watched.backend.stop()
        await ann.leave(room, "ann")
        await eventually(lambda: watched.module("return webhook.module.save().queue.failures > 0"), True)
        await watched.backend.listen()
        await watched.backend.received("room-destroyed", room, within=10)
    assert names(events_of(watched, room)) == ["user-joined", "user-left", "room-destroyed"]


async def test_an_event_keeps_its_id_at_each_try(watched: Server, room: str) -> None:
    watched.backend.on("user-joined", reply({}, status=503))
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        await watched.backend.received("user-joined", room, count=2, within=10)
        watched.backend.on("user-joined", reply({}, status=202))
        await ann.leave(room, "ann")
        await watched.backend.received("room-destroyed", room, within=10)
    tries = [e for e in events_of(watched, room) if e.endpoint == "user-joined"]
    assert len(tries) >= 3
    assert len({e.body["eventId"] for e in tries}) == 1
    assert len({e.headers["Idempotency-Key"] for e in tries}) == 1
    order = [e.body["sequence"] for e in events_of(watched, room)]
    assert order == sorted(order), "nothing overtakes what still waits"


async def test_rooms_do_not_wait_for_each_other(watched: Server, room: str) -> None:
    slow = hold(reply({}, status=202))
    watched.backend.on("user-joined", slow, room=room)
    async with Client.connect(watched) as ann, Client.connect(watched) as bob:
        await ann.join(room, nick="ann")
        await watched.backend.received("user-joined", room)
        await bob.join("other-" + room, nick="bob")
        await watched.backend.received("user-joined", "other-" + room, within=2.5)
        slow.release()


@pytest.mark.parametrize("status", [400, 404, 409, 410, 413, 422])
async def test_an_event_that_is_refused_for_good_blocks_nobody(watched: Server, room: str, status: int) -> None:
    watched.backend.on("user-joined", reply({"error": "no"}, status=status))
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
        await watched.backend.received("room-destroyed", room)
    assert names(events_of(watched, room)) == ["user-joined", "user-left", "room-destroyed"]


async def test_the_queue_is_bounded_and_says_what_it_dropped(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={**OPTIONS, "muc_webhook_queue_size": 3})
    prosody.backend.on("user-joined", reply({}, status=503))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await bob.leave(room, "bob")
        await bob.join(room, nick="bob")
        await bob.leave(room, "bob")
        assert await prosody.module("return webhook.module.save().queue.dropped") == 2
        assert "was dropped: the queue is full" in prosody.log_of_test()
        prosody.backend.on("user-joined", reply({}, status=202))
        await quiet(prosody)
        await ann.leave(room, "ann")
        await prosody.backend.received("room-destroyed", room, within=10)
    numbers = sorted({e.body["sequence"] for e in events_of(prosody, room)})
    assert numbers == [1, 2, 3, 6, 7], "the numbers show what is missing"


async def test_thousands_can_leave_at_once_and_no_event_is_dropped(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    await prosody.backend.stop()
    leave = f'{GATE}.parts.queue.add("{room}-"..n % 20, {{ id = "leave-"..n; endpoint = "user-left"; body = "{{}}" }})'
    await prosody.module(f"for n = 1, 5000 do {leave}; end")
    assert await prosody.module("return webhook.module.save().queue.dropped") == 0


@pytest.mark.parametrize("how", ["reload", "unload and load"])
async def test_the_queue_outlives_the_module(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    prosody.backend.on("user-joined", reply({}, status=503))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await prosody.backend.received("user-joined", room)
        if how == "reload":
            await prosody.reload()
        else:
            await prosody.unload()
            await prosody.load()
        prosody.backend.on("user-joined", reply({}, status=202))
        before = len(events_of(prosody, room))
        await prosody.backend.received("user-joined", room, count=before + 2, within=10)
        await quiet(prosody)
        if how == "reload":
            await bob.leave(room, "bob")
            await prosody.backend.received("user-left", room)
            assert events_of(prosody, room)[-1].body["sequence"] == 3, "and the story goes on"
    tries = [(e.body["nick"], e.body["sequence"]) for e in events_of(prosody, room)[before : before + 2]]
    assert tries == [("ann", 1), ("bob", 2)]


async def test_after_a_reload_with_another_url_events_go_there(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={**OPTIONS, "muc_webhook_timeout": 30})
    for event in ALL:
        prosody.backend.on(event, hold(reply({}, status=202)))
    async with AsyncExitStack() as stack:
        new = await stack.enter_async_context(Backend())
        ann = await stack.enter_async_context(Client.connect(prosody))
        rooms = [f"{room}-{number}" for number in range(6)]
        for each in rooms:
            await ann.join(each, nick="ann")
        await prosody.backend.received("user-joined", count=4)  # and two wait for a place
        config = prosody.folder / "prosody.cfg.lua"
        config.write_text(config.read_text().replace(prosody.backend.url, new.url))
        await prosody.lua("prosody.reload_config()")
        await prosody.reload()
        for each in rooms:
            await ann.leave(each, "ann")
            await new.received("room-destroyed", each)
        await quiet(prosody)
        assert [names(new.events(each)) for each in rooms] == [["user-joined", "user-left", "room-destroyed"]] * 6
    tried = {e.key for e in prosody.backend.requests if e.endpoint in ALL}
    assert len(tried) == 4
    assert tried <= {e.key for e in new.requests}, "with the same ids"


# -- how long


def ending(prosody: Server, room: str, seconds: float) -> dict[str, Any]:
    config = {"maxDurationMinutes": seconds / 60, "meetingTitle": "Short"}
    prosody.backend.on("room-created", reply(config), room=room)
    return config


async def test_a_meeting_ends_when_its_time_is_over(watched: Server, room: str) -> None:
    ending(watched, room, 1)
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        gone = await ann.expect(lambda s: s.get("type") == "unavailable")
        reason = gone.findtext(".//{http://jabber.org/protocol/muc#user}reason")
        assert reason is not None
        assert reason.startswith("The meeting has reached its limit")
        await watched.backend.received("room-destroyed", room)
        assert room not in await watched.rooms()
    events = events_of(watched, room)
    assert [(e.endpoint, e.body.get("reason")) for e in events] == [
        ("user-joined", None),
        ("user-left", "room-destroyed"),
        ("room-destroyed", "max-duration"),
    ]


async def test_the_end_is_announced(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_duration_warning": 0.03})
    ending(prosody, room, 3)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        warning = await ann.expect(lambda s: (s.findtext(f"{CLIENT}body") or "").startswith("This meeting ends in"))
        assert warning.get("from") == ann.room_jid(room)
        assert json_message(warning) is None, "Jitsi's frontend shows nothing of a chat line with JSON in it"
        assert warning.findtext("{http://jitsi.org/protocol/display-name}display-name") == "Meeting"
        data = await ann.expect(lambda s: (json_message(s) or {}).get("type") == "MEETING_ENDING")
        assert json_message(data) == {"type": "MEETING_ENDING", "minutesLeft": 0.03, "reason": "max-duration"}
        assert data.find(f"{CLIENT}body") is None
        await ann.expect(lambda s: s.get("type") == "unavailable")


async def test_the_end_comes_in_spite_of_a_reload(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    ending(prosody, room, 2)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await prosody.reload()
        await ann.expect(lambda s: s.get("type") == "unavailable", within=4)
        await prosody.backend.received("room-destroyed", room)
    assert names(events_of(prosody, room)).count("room-destroyed") == 1


async def test_a_persistent_room_is_emptied_and_lives_on(watched: Server, room: str) -> None:
    watched.backend.on("room-created", reply({"maxDurationMinutes": 1 / 60, "persistent": True}))
    async with Client.connect(watched) as ann:
        await ann.join(room, nick="ann")
        gone = await ann.expect(lambda s: s.get("type") == "unavailable")
        assert "limit" in (gone.findtext(".//{http://jabber.org/protocol/muc#user}reason") or "")
        assert [text for s in ann.inbox if "limit" in (text := s.findtext(f"{CLIENT}body") or "")], "seen before it"
        assert {"type": "MEETING_ENDED", "reason": "max-duration"} in ann.json_messages(room)
        assert room in await watched.rooms()
        assert (await ann.join(room, nick="ann")).joined, "no tombstone"
    assert "room-destroyed" not in names(events_of(watched, room))


async def test_the_limit_can_be_left_to_others(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_enforce_duration": False})
    ending(prosody, room, 0.1)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        timers = await prosody.module(
            "for _, life in pairs(webhook.module.save().lives) do "
            "if life.timer then return true; end; end; return false"
        )
        assert timers is False
        await asyncio.sleep(0.3)
        assert await prosody.occupants(room) == ["ann"]


async def test_time_runs_from_the_first_real_participant(watched: Server, room: str) -> None:
    ending(watched, room, 60)
    async with Client.connect(watched, user="focus") as focus, Client.connect(watched) as ann:
        await focus.join(room, nick="focus")
        started = f'return muc.get_room_from_jid("{room}@conference.localhost")._data.muc_webhook_started_at ~= nil'
        assert await watched.module(started) is False
        await ann.join(room, nick="ann")
        assert await watched.module(started) is True


async def test_events_that_were_stored_wrongly_keep_nobody_out(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.unload()
    await prosody.lua("""
        local store = require "core.storagemanager".open("conference.localhost", "muc_webhook_queue")
        assert(store:set(nil, { items = { 1 } }))""")
    await prosody.load()
    assert "Taking back the events of an earlier run failed" in prosody.log_of_test()
    prosody.log_is_read()
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, nick="ann")).joined
