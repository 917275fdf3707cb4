"""Beside the other modules of a Jitsi server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.prosody.conftest import StartProsody, eventually
from tests.rig.answers import allow, deny, hold, reply
from tests.rig.xmpp import Client, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")

QUEUE = ("rig_meeting_id", "muc_webhook")
QUEUE_AND_LIMIT = ("rig_meeting_id", "rig_rate_limit", "muc_webhook")


async def test_users_wait_for_jicofo_and_are_asked_for_once(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=QUEUE)
    prosody.backend.on("room-created", reply({"chatEnabled": False, "autoRecord": True, "recordingEnabled": True}))
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
        Client.connect(prosody, user="focus") as focus,
    ):
        await ann.begin_join(room, "ann")
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        await ann.ping()
        await bob.ping()
        assert await prosody.occupants(room) == []
        assert (await focus.join(room, nick="focus")).joined
        results = [await ann.await_join(room), await bob.await_join(room)]
        assert [r.config["chatEnabled"] for r in results if r.config] == [False, False]
        assert sorted(r.asked_to_record for r in results) == [False, True], "whoever is first"
        assert len(prosody.backend.asked("validate-access", room)) == 2
        assert len(prosody.backend.asked("room-created", room)) == 1


async def test_jicofos_replay_is_quick_while_users_wait_on_a_slow_backend(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(muc_modules=QUEUE, log_level="info")
    times = []
    async with AsyncExitStack() as stack:
        early = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(5)]
        late = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(10)]
        for attempt in range(3):  # the machine may be busy: the best of three counts
            prosody.backend.reset_answers()
            own = f"{attempt}-{room}"
            for number, client in enumerate(early):
                await client.begin_join(own, f"early{number}")
            await prosody.backend.received("validate-access", own, count=5)
            await asyncio.gather(*(c.ping() for c in early))
            slow = hold(allow())
            prosody.backend.on("validate-access", slow)
            for number, client in enumerate(late):
                await client.begin_join(own, f"late{number}")
            await prosody.backend.received("validate-access", own, count=15)
            async with Client.connect(prosody, user="focus") as focus:
                times.append((await focus.join(own, nick="focus")).took)
                assert all(r.joined for r in await asyncio.gather(*(c.await_join(own) for c in early)))
                slow.release()
                assert all(r.joined for r in await asyncio.gather(*(c.await_join(own) for c in late)))
            assert len(prosody.backend.asked("validate-access", own)) == 15
    assert min(times) < 0.05


async def test_a_denied_user_does_not_even_reach_the_queue(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=QUEUE)
    prosody.backend.on("validate-access", deny("No"))
    async with Client.connect(prosody) as eve, Client.connect(prosody, user="focus") as focus:
        assert (await eve.join(room, nick="eve")).denied
        await focus.join(room, nick="focus")
        assert await prosody.occupants(room) == ["focus"]
        assert not eve.has(lambda s: "110" in statuses(s))


async def test_the_rate_limiters_delay_loses_no_join(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=("rig_rate_limit", "muc_webhook"))
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(6)]
        results = await asyncio.gather(*(c.join(room, nick=f"n{i}") for i, c in enumerate(crowd)))
        assert all(r.joined for r in results)
        assert len(prosody.backend.asked("validate-access", room)) == 6


async def test_the_limit_holds_through_queue_and_rate_limiter(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=QUEUE_AND_LIMIT)
    prosody.backend.on("room-created", reply({"maxParticipants": 3}))
    async with AsyncExitStack() as stack, Client.connect(prosody, user="focus") as focus:
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(10)]
        for number, client in enumerate(crowd):
            await client.begin_join(room, f"n{number}")
        await prosody.backend.received("validate-access", room, count=10)
        await asyncio.gather(*(c.ping() for c in crowd))
        await focus.join(room, nick="focus")
        results = await asyncio.gather(*(c.await_join(room) for c in crowd))
        assert sum(r.joined for r in results) == 3
        assert len(await prosody.occupants(room)) == 4


async def test_a_stanza_sent_again_from_a_timer_is_asked_for_once(start_prosody: StartProsody, room: str) -> None:
    """Some modules put a user's stanza back through the router, outside of the user's own thread."""
    prosody = await start_prosody()
    async with Client.connect(prosody) as ann:
        await prosody.module(f"""
            local st, timer = require "util.stanza", require "util.timer";
            local origin = prosody.full_sessions["{ann.jid}"];
            timer.add_task(0, function ()
                local attr = {{ from = "{ann.jid}"; to = "{ann.room_jid(room)}/ann" }};
                prosody.core_post_stanza(origin, st.presence(attr)
                    :tag("x", {{ xmlns = "http://jabber.org/protocol/muc" }}):up());
            end)""")
        assert (await ann.await_join(room)).joined
        assert len(prosody.backend.asked("validate-access", room)) == 1


async def test_a_stanza_that_was_let_in_once_is_asked_for_when_it_comes_back(
    start_prosody: StartProsody, room: str
) -> None:
    """The user was thrown out meanwhile, or left: the answer was for one join."""
    prosody = await start_prosody()
    async with Client.connect(prosody) as ann:
        put_back = f"""
            local st, timer = require "util.stanza", require "util.timer";
            local origin = prosody.full_sessions["{ann.jid}"];
            local attr = {{ from = "{ann.jid}"; to = "{ann.room_jid(room)}/ann" }};
            prosody.rig_stanza = prosody.rig_stanza or st.presence(attr)
                :tag("x", {{ xmlns = "http://jabber.org/protocol/muc" }}):up();
            timer.add_task(0, function () prosody.core_post_stanza(origin, prosody.rig_stanza); end)"""
        await prosody.module(put_back)
        assert (await ann.await_join(room)).joined
        await ann.leave(room, nick="ann")
        prosody.backend.on("validate-access", deny("No"))
        await prosody.module(put_back)
        assert str((await ann.await_join(room)).error) == "cancel/not-allowed"
    await prosody.lua("prosody.rig_stanza = nil")


async def test_a_stanza_sent_from_another_sessions_thread_holds_nobody_up(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody()
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=room)
    async with Client.connect(prosody) as ann:
        await prosody.module(f"""
            local st = require "util.stanza";
            local origin = prosody.full_sessions["{ann.jid}"];
            local async = require "util.async";
            async.runner(function ()
                local attr = {{ from = "{ann.jid}"; to = "{ann.room_jid(room)}/ann" }};
                prosody.core_post_stanza(origin, st.presence(attr)
                    :tag("x", {{ xmlns = "http://jabber.org/protocol/muc" }}):up());
                prosody.rig_went_on = true;
            end):run(true)""")
        await prosody.backend.received("validate-access", room)
        assert await prosody.lua("return prosody.rig_went_on") is True
        slow.release()
        assert (await ann.await_join(room)).joined


async def test_a_lobby_is_opened_by_jitsis_own_event(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=("muc_webhook", "rig_lobby"))
    prosody.backend.on(
        "room-created",
        reply({"lobbyEnabled": True, "membersOnly": True, "moderators": ["mod@auth.localhost"]}),
    )
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
        Client.connect(prosody, user="mod") as mod,
    ):
        await ann.join(room, nick="ann")
        lobby = await prosody.module(f'return muc.get_room_from_jid("{room}@conference.localhost")._data.lobbyroom')
        assert lobby == f"{room}@lobby.localhost", "never true: other plugins expect a JID"
        assert str((await bob.join(room, nick="bob")).error) == "auth/registration-required", "waits in the lobby"
        assert (await mod.join(room, nick="mod")).role == "moderator"


async def test_a_lobby_that_nobody_opens_is_said(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody()
    prosody.backend.on("room-created", reply({"lobbyEnabled": True}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).joined
    assert "no module answers create-lobby-room" in prosody.log_of_test()


async def test_who_leaves_while_in_jitsis_queue_is_not_joined(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=QUEUE)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        await ann.ping()
        await ann.fin()
        await eventually(lambda: prosody.has_session(ann.jid), False)
        await focus.join(room, nick="focus")
        assert await prosody.occupants(room) == ["focus"]
