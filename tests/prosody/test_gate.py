"""Who gets in, and who was never there."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import Answer, allow, deny, hold, raw, reply, reset
from tests.rig.xmpp import CLIENT, Client, StanzaError, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRANSPORTS = ("tcp", "bosh", "websocket")
UNAVAILABLE = StanzaError(
    "wait", "remote-server-timeout", "The meeting service cannot be reached. Please try again in a moment."
)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("smacks", [False, True])
async def test_an_allowed_user_gets_in(prosody: Server, room: str, transport: str, smacks: bool) -> None:
    if smacks and transport == "bosh":
        smacks = False  # BOSH has its own acknowledgements
    async with Client.connect(prosody, transport=transport, smacks=smacks) as ann:
        result = await ann.join(room, nick="ann")
        assert result.joined
        assert result.statuses == {"110", "201"}
        assert await prosody.occupants(room) == ["ann"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("smacks", [False, True])
async def test_a_denied_user_learns_why(prosody: Server, room: str, transport: str, smacks: bool) -> None:
    if smacks and transport == "bosh":
        smacks = False
    prosody.backend.on("validate-access", deny("Meeting has been cancelled"))
    async with Client.connect(prosody, transport=transport, smacks=smacks) as ann:
        result = await ann.join(room, nick="ann")
        assert result.error == StanzaError("cancel", "not-allowed", "Meeting has been cancelled")
        assert room not in await prosody.rooms()


async def test_a_denied_first_joiner_leaves_no_room_and_no_announcement(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", deny())
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).denied
    assert room not in await prosody.rooms()
    assert prosody.backend.asked("room-created") == []


async def test_a_denied_user_is_never_seen_by_those_inside(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        prosody.backend.on("validate-access", deny())
        assert (await eve.join(room, nick="eve")).denied
        await ann.ping()
        assert not ann.has(lambda s: s.get("from", "").endswith("/eve"))
        assert await prosody.occupants(room) == ["ann"]


async def test_fifty_denied_at_once_leave_nothing(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", deny(after=0.05))
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(50)]
        results = await asyncio.gather(*(c.join(room, nick=f"n{i}") for i, c in enumerate(crowd)))
        assert all(r.denied for r in results)
        assert room not in await prosody.rooms()


async def test_two_at_once_into_a_new_room_share_one_room_and_one_config(prosody: Server, room: str) -> None:
    slow = hold(reply({"meetingTitle": "Board"}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.begin_join(room, "ann")
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        await prosody.backend.received("room-created", room)
        slow.release()
        results = await asyncio.gather(ann.await_join(room), bob.await_join(room))
        assert [r.joined for r in results] == [True, True]
        assert [r.config for r in results] == [{"meetingTitle": "Board"}] * 2
        assert await prosody.occupants(room) == ["ann", "bob"]
        assert sorted(len(r.statuses & {"201"}) for r in results) == [0, 1], "one of them made the room"
        assert len(prosody.backend.asked("room-created", room)) == 1


async def test_same_nick_twice_is_a_conflict(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.begin_join(room, "ann")
        await eve.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room, count=2)
        slow.release()
        results = await asyncio.gather(ann.await_join(room), eve.await_join(room))
        assert sorted(r.joined for r in results) == [False, True]
        assert [str(r.error) for r in results if r.error] == ["cancel/conflict"]


async def test_a_nick_that_is_taken_is_no_way_past_the_question(prosody: Server, room: str) -> None:
    async with Client.connect(prosody, user="ann") as ann, Client.connect(prosody, user="ann") as again:
        await ann.join(room, nick="ann")
        prosody.backend.on("validate-access", deny("No"))
        assert (await again.join(room, nick="ann")).error == StanzaError("cancel", "not-allowed", "No")
        assert len(prosody.backend.asked("validate-access", room)) == 2


async def test_the_same_presence_twice_is_one_question(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        slow.release()
        assert (await ann.await_join(room)).joined
        await ann.ping()
        assert len(prosody.backend.asked("validate-access", room)) == 1


async def test_those_inside_are_not_asked_for_again(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await ann.send(f"<presence to='{ann.room_jid(room)}/ann'><show>away</show></presence>")
        await ann.send(f"<presence to='{ann.room_jid(room)}/anna'/>")
        renamed = await ann.expect(lambda s: s.get("from", "").endswith("/anna") and "110" in statuses(s))
        assert renamed.get("type") is None
        assert len(prosody.backend.asked("validate-access", room)) == 1


NO_CLEAR_YES = {
    "text": raw("no JSON at all"),
    "empty": raw(""),
    "null": raw("null"),
    "array": raw("[true]"),
    "allowed-null": raw('{"allowed": null}'),
    "allowed-text": raw('{"allowed": "yes"}'),
    "allowed-number": raw('{"allowed": 1}'),
    "other-key": raw('{"allow": true}'),
    "cut-off": raw('{"allowed": true'),
    "cut-off-without-spaces": raw('{"allowed":true'),
    "cut-off-behind-a-comma": raw('{"allowed":true,'),
    "more-behind-it": raw('{"allowed":true}}'),
    "a-name-alone": raw('{"allowed":true,"reason"}'),
    "allowed-text-without-spaces": raw('{"allowed":"true"}'),
    "deep": raw("[" * 100_000),
    "html-404": raw("<html>not here</html>", status=404, content_type="text/html"),
    "allow-404": reply({"allowed": True}, status=404),
    "allow-503": reply({"allowed": True}, status=503),
    "deny-503": reply({"allowed": False}, status=503),
    "redirect": reply({"allowed": True}, status=302),
    "unauthorized": reply({"error": "unauthorized"}, status=401),
    "too-big": raw('{"allowed": true, "padding": "' + "x" * 1_100_000 + '"}'),
    "reset": reset(),
    "hang": hold(allow()),
}


@pytest.mark.parametrize("answer", NO_CLEAR_YES.values(), ids=NO_CLEAR_YES.keys())
async def test_only_a_clear_yes_opens(start_prosody: StartProsody, room: str, answer: Answer) -> None:
    prosody = await start_prosody(options={"muc_webhook_timeout": 1.5})
    prosody.backend.on("validate-access", answer)
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).error == UNAVAILABLE
        assert room not in await prosody.rooms()
        prosody.backend.on("validate-access", allow())
        assert (await ann.join(room)).joined, "the next try is not held back"


async def test_a_backend_that_is_not_there_refuses_at_once(prosody: Server, room: str) -> None:
    await prosody.backend.stop()
    try:
        async with Client.connect(prosody) as ann:
            result = await ann.join(room)
            assert result.error == UNAVAILABLE
            assert result.took < 2.5, "long before the time-out"
    finally:
        await prosody.backend.listen()


@pytest.mark.parametrize("status", [400, 403, 404, 409, 410, 422])
async def test_a_4xx_with_a_clear_no_is_a_denial(prosody: Server, room: str, status: int) -> None:
    prosody.backend.on("validate-access", reply({"allowed": False, "reason": "Not invited"}, status=status))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).error == StanzaError("cancel", "not-allowed", "Not invited")


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (None, "You are not allowed to join this meeting"),
        (17, "You are not allowed to join this meeting"),
        ("  ", "You are not allowed to join this meeting"),
        ("line\nbreak\u0007", "line break"),
        ("Room creation is restricted", "You are not allowed to join this meeting"),
        ("é" * 400, "é" * 250),
        ("<b>&\"'", "<b>&\"'"),
    ],
)
async def test_reasons_of_any_kind_are_shown_safely(prosody: Server, room: str, reason: object, shown: str) -> None:
    prosody.backend.on("validate-access", reply({"allowed": False, "reason": reason}))
    async with Client.connect(prosody) as ann:
        error = (await ann.join(room)).error
        assert error == StanzaError("cancel", "not-allowed", shown)


@pytest.mark.parametrize("to", ["{room}@conference.localhost", "conference.localhost"])
async def test_a_join_without_a_nick_makes_no_room(prosody: Server, room: str, to: str) -> None:
    prosody.backend.on("validate-access", deny())
    before = await prosody.rooms()
    async with Client.connect(prosody) as ann:
        await ann.send(f"<presence to='{to.format(room=room)}'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
        error = await ann.expect(lambda s: s.get("type") == "error")
        assert error.find(f"{CLIENT}error/") is not None
        await ann.ping()
    assert await prosody.rooms() == before


async def test_the_component_itself_is_no_way_around(prosody: Server) -> None:
    prosody.backend.on("validate-access", deny("No"))
    async with Client.connect(prosody) as ann:
        await ann.send("<presence to='conference.localhost/ann'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
        error = await ann.expect(lambda s: s.get("type") == "error")
        assert error.find(f"{CLIENT}error/{{urn:ietf:params:xml:ns:xmpp-stanzas}}not-allowed") is not None
    assert "conference.localhost" not in await prosody.rooms()


async def test_fail_open_lets_in_but_not_past_a_denial(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_fail_open": True})
    async with Client.connect(prosody) as ann:
        prosody.backend.on("validate-access", raw("nonsense"))
        prosody.backend.on("room-created", raw("nonsense"))
        assert (await ann.join(room)).joined
        prosody.backend.on("validate-access", deny("No"), room="other-" + room)
        assert (await ann.join("other-" + room)).error == StanzaError("cancel", "not-allowed", "No")
