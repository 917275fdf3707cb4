"""What may happen while a join waits."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from xml.etree import ElementTree as ET

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.rig.answers import allow, deny, hold, reply
from tests.rig.ports import free_port
from tests.rig.xmpp import CLIENT, BoshTransport, Client, ConnectionGone, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")


def is_own_presence(room: str) -> Callable[[ET.Element], bool]:
    return lambda stanza: stanza.get("from", "").partition("@")[0] == room and "110" in statuses(stanza)


async def vanish(client: Client, how: str) -> None:
    if how == "fin":
        await client.fin()
    elif how == "rst":
        await client.rst()
    elif how == "bosh-terminate":
        assert isinstance(client.transport, BoshTransport)
        await client.transport.close()
    else:
        await client.close()


@pytest.mark.parametrize(
    ("transport", "how"),
    [
        ("tcp", "fin"),
        ("tcp", "rst"),
        ("tcp", "close"),
        ("websocket", "close"),
        ("websocket", "fin"),
        ("bosh", "bosh-terminate"),
    ],
)
@pytest.mark.parametrize("room_is", ["new", "there"])
async def test_who_goes_while_waiting_was_never_there(
    prosody: Server, room: str, transport: str, how: str, room_is: str
) -> None:
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody, transport=transport) as bob,
    ):
        if room_is == "there":
            await ann.join(room, nick="ann")
        slow = hold(allow())
        prosody.backend.on("validate-access", slow)
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2 if room_is == "there" else 1)
        await vanish(bob, how)
        await eventually(lambda: prosody.has_session(bob.jid), False)
        slow.release()
        if room_is == "there":
            await ann.ping()
            assert not ann.has(lambda s: s.get("from", "").endswith("/bob"))
            assert await prosody.occupants(room) == ["ann"]
        else:
            prosody.backend.on("validate-access", allow())
            assert (await ann.join("after-" + room)).joined
            assert room not in await prosody.rooms()
            assert prosody.backend.asked("room-created", room) == []


async def test_join_then_leave_ends_outside(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await ann.send(f"<presence type='unavailable' to='{ann.room_jid(room)}/ann'/>")
        await prosody.backend.received("validate-access", room)
        slow.release()
        await ann.ping()
        assert await prosody.occupants(room) == []
        assert room not in await prosody.rooms()


async def test_what_is_sent_after_the_join_comes_after_it(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await ann.send(f"<message type='groupchat' to='{ann.room_jid(room)}'><body>Hello</body></message>")
        await prosody.backend.received("validate-access", room)
        slow.release()
        message = await ann.expect(lambda s: s.findtext(f"{CLIENT}body") == "Hello")
        assert message.get("from") == f"{ann.room_jid(room)}/ann"


async def test_a_room_destroyed_meanwhile_is_made_anew(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        slow = hold(allow())
        prosody.backend.on("validate-access", slow)
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        await prosody.destroy(room)
        slow.release()
        result = await bob.await_join(room)
        assert result.statuses >= {"201"}
        assert await prosody.occupants(room) == ["bob"]
        assert len(prosody.backend.asked("room-created", room)) == 2, "a new life, a new config"


async def test_a_room_destroyed_while_its_config_is_awaited_is_asked_for_again(prosody: Server, room: str) -> None:
    old, new = hold(reply({"meetingTitle": "Old"})), hold(reply({"meetingTitle": "New"}))
    prosody.backend.on("room-created", old)
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as bob:
        await focus.join(room, nick="focus")
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room)
        await prosody.backend.received("room-created", room)
        prosody.backend.on("room-created", new)
        waiting = f'return #(webhook.module.save().records["{room}@conference.localhost"].waiters or {{}})'
        await eventually(lambda: prosody.module(waiting), 1)
        await prosody.destroy(room)
        old.release()
        await prosody.backend.received("room-created", room, count=2)
        new.release()
        result = await bob.await_join(room)
        assert result.statuses >= {"201"}
        assert result.config == {"meetingTitle": "New"}


async def test_a_room_destroyed_while_its_config_is_awaited_has_no_say_any_more(prosody: Server, room: str) -> None:
    old = hold(reply({}))
    prosody.backend.on("room-created", old)
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as bob:
        await focus.join(room, nick="focus")
        await bob.begin_join(room, "bob")
        waits = f'return webhook.module.save().records["{room}@{prosody.muc}"].waiters ~= nil'
        await eventually(lambda: prosody.module(waits), True)
        await prosody.destroy(room)
        prosody.backend.on("room-created", reply({"message": "No such meeting"}, status=404))
        old.release()
        assert str((await bob.await_join(room)).error) == "cancel/not-allowed"
        assert room not in await prosody.rooms()


@pytest.mark.parametrize("transport", ["tcp", "websocket", "bosh"])
async def test_who_goes_while_the_config_is_awaited_was_never_there(prosody: Server, room: str, transport: str) -> None:
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    await prosody.module("""
        local made = {};
        prosody.rig_made = made;
        webhook.module:hook("muc-room-pre-create", function (event) made[event.room.jid] = true end)""")
    async with Client.connect(prosody) as ann, Client.connect(prosody, transport=transport) as bob:
        await bob.begin_join(room, "bob")
        await prosody.backend.received("room-created", room)
        await bob.close()
        await eventually(lambda: prosody.has_session(bob.jid), False)
        slow.release()
        prosody.backend.on("room-created", reply({}))
        assert (await ann.join("after-" + room)).joined
        assert await prosody.lua(f'return prosody.rig_made["{room}@{prosody.muc}"] == nil') is True


async def test_a_components_user_who_leaves_while_the_config_is_awaited_stays_out(prosody: Server, room: str) -> None:
    slow = hold(reply({}))
    prosody.backend.on("room-created", slow)
    async with Client.component(prosody) as bot:
        await bot.begin_join(room, "bot")
        await prosody.backend.received("room-created", room)
        await bot.send(f"<presence type='unavailable' to='{bot.room_jid(room)}/bot'/>")
        await bot.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to="localhost")
        slow.release()
        prosody.backend.on("room-created", reply({}))
        assert (await bot.join("after-" + room, nick="bot")).joined
        assert room not in await prosody.rooms()


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
@pytest.mark.parametrize("verdict", ["allow", "deny"])
async def test_a_session_resumed_while_its_join_waits_gets_the_answer(
    prosody: Server, room: str, transport: str, verdict: str
) -> None:
    slow = hold(allow() if verdict == "allow" else deny("No"))
    prosody.backend.on("validate-access", slow)
    async with Client.connect(prosody, user="ann", transport=transport, smacks=True) as before:
        await before.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        if transport == "tcp":
            await before.rst()
        else:
            await before.close()
        after = await Client.login(prosody, user="ann", transport=transport)
        try:
            await after.resume(before)
            slow.release()
            result = await after.await_join(room)
            assert result.joined == (verdict == "allow")
            expected = ["ann"] if verdict == "allow" else []
            assert await prosody.occupants(room) == expected
        finally:
            await after.close()


async def test_a_session_without_a_connection_joins_and_finds_out_when_it_is_back(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with Client.connect(prosody, user="ann", smacks=True) as before:
        await before.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        await before.rst()
        slow.release()
        await eventually(lambda: prosody.occupants(room), ["ann"])
        after = await Client.login(prosody, user="ann")
        try:
            await after.resume(before)
            assert (await after.await_join(room)).joined
        finally:
            await after.close()


@pytest.mark.parametrize("module", ["muc_webhook", "muc"])
@pytest.mark.parametrize("verdict", ["allow", "deny", "hang"])
async def test_a_reload_changes_nothing_for_those_who_wait(
    start_prosody: StartProsody, room: str, module: str, verdict: str
) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timeout": 1.5 if verdict == "hang" else 5})
    answers = {"allow": hold(allow()), "deny": hold(deny("No")), "hang": hold(allow())}
    slow = answers[verdict]
    prosody.backend.on("validate-access", slow)
    prosody.backend.on("room-created", reply({"maxParticipants": 1}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        await prosody.reload(module)
        if verdict != "hang":
            slow.release()
        result = await ann.await_join(room)
        if verdict == "allow":
            assert result.joined
            assert result.config == {}
            assert await prosody.occupants(room) == ["ann"]
            prosody.backend.on("validate-access", allow())
            assert str((await bob.join(room, nick="bob")).error) == "cancel/service-unavailable"
        else:
            expected = {"deny": "cancel/not-allowed", "hang": "wait/remote-server-timeout"}[verdict]
            assert str(result.error) == expected
            assert room not in await prosody.rooms()


async def test_a_reload_of_mod_muc_leaves_one_room(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        slow = hold(allow())
        prosody.backend.on("validate-access", slow)
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        await prosody.reload("muc")
        slow.release()
        assert (await bob.await_join(room)).joined
        assert await prosody.occupants(room) == ["ann", "bob"]


async def test_a_reload_while_a_config_is_awaited(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    slow = hold(reply({"meetingTitle": "Board"}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("room-created", room)
        await prosody.reload()
        await bob.begin_join(room, "bob")
        await prosody.backend.received("validate-access", room, count=2)
        slow.release()
        for client in (ann, bob):
            assert (await client.await_join(room)).config == {"meetingTitle": "Board"}
        assert len(prosody.backend.asked("room-created", room)) == 1


async def test_unloading_answers_those_who_wait(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timeout": 30})
    prosody.backend.on("validate-access", hold(allow()))
    prosody.backend.on("room-created", hold(reply({})), room=room + "-2")
    prosody.backend.on("validate-access", allow(), room=room + "-2")
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.begin_join(room, "ann")
        await bob.begin_join(room + "-2", "bob")
        await prosody.backend.received("validate-access", room)
        await prosody.backend.received("room-created", room + "-2")
        await prosody.unload()
        assert str((await ann.await_join(room)).error) == "wait/remote-server-timeout"
        assert str((await bob.await_join(room + "-2")).error) == "wait/remote-server-timeout"
        assert await prosody.rooms() == []
        await prosody.load()
        prosody.backend.reset_answers()
        assert (await ann.join(room)).joined


async def test_shutting_down_does_not_wait_for_a_backend_that_hangs(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timeout": 60})
    prosody.backend.on("validate-access", hold(allow()))
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        started = time.monotonic()
        prosody.process.terminate()
        try:
            assert str((await ann.await_join(room, within=5)).error) == "wait/remote-server-timeout"
        except ConnectionGone:
            pytest.fail("the user was cut off without an answer")
        await asyncio.wait_for(prosody.process.wait(), 10)
        assert time.monotonic() - started < 8


async def test_others_notice_nothing_of_a_hundred_joins_that_hang(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_timeout": 3})
    prosody.backend.on("validate-access", hold(allow()), room=room)
    async with AsyncExitStack() as stack, Client.connect(prosody) as ann:
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(100)]
        for number, client in enumerate(crowd):
            await client.begin_join(room, f"n{number}")
        await prosody.backend.received("validate-access", room, count=100)
        medians = [statistics.median([await ann.ping() for _ in range(40)]) for _ in range(3)]
        assert min(medians) < 0.020, "the machine may be busy: the best of three counts"
        assert (await ann.join("other-" + room)).joined
        results = await asyncio.gather(*(c.await_join(room) for c in crowd))
        assert {str(r.error) for r in results} == {"wait/remote-server-timeout"}
        assert room not in await prosody.rooms()


async def test_a_user_of_a_component_waits_without_holding_up_its_neighbours(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=room)
    async with Client.component(prosody) as bot:
        await bot.begin_join(room, "bot")
        await prosody.backend.received("validate-access", room)
        assert (await bot.join("other-" + room, nick="bot")).joined, "the component's stream goes on"
        slow.release()
        assert (await bot.await_join(room)).joined
        assert len(prosody.backend.asked("validate-access", room)) == 1


async def test_a_user_of_a_component_is_denied_like_anybody(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", deny("No"))
    async with Client.component(prosody) as bot:
        assert str((await bot.join(room, nick="bot")).error) == "cancel/not-allowed"
    assert room not in await prosody.rooms()


async def test_a_user_of_a_component_who_leaves_while_waiting_stays_out(prosody: Server, room: str) -> None:
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    async with Client.component(prosody) as bot:
        await bot.begin_join(room, "bot")
        await prosody.backend.received("validate-access", room)
        await bot.send(f"<presence type='unavailable' to='{bot.room_jid(room)}/bot'/>")
        await bot.ping()
        slow.release()
        prosody.backend.on("validate-access", allow())
        assert (await bot.join("other-" + room, nick="bot")).joined
        assert room not in await prosody.rooms()
        assert not bot.has(lambda s: "110" in statuses(s))


async def test_a_user_of_another_server_waits_without_holding_up_its_neighbours(
    start_prosody: StartProsody, room: str
) -> None:
    port = free_port()
    s2s = (
        f's2s_ports = {{ {port} }}\ns2s_interfaces = {{ "127.0.0.1" }}\ns2s_require_encryption = false\n'
        "s2s_secure_auth = false\ns2s_direct_tls_ports = {}"
    )
    prosody = await start_prosody(fresh=True, extra_global=s2s)
    await prosody.load("dialback")
    await prosody.load("s2s")
    slow = hold(allow())
    prosody.backend.on("validate-access", slow, room=room)
    async with Client.remote(prosody, port, "ann") as remote:
        await remote.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        remote.speak_as("bob")
        await remote.begin_join("other-" + room, "bob")
        await remote.expect(is_own_presence("other-" + room))
        slow.release()
        await remote.expect(is_own_presence(room))
        assert len(prosody.backend.asked("validate-access", room)) == 1
