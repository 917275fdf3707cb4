"""Breakout rooms are no way around the gate, and nobody is asked about a second time because of them."""

from __future__ import annotations

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import deny
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

BREAKOUT = "breakout.localhost"
HOSTS = f"""
VirtualHost "localhost"
	main_muc = "conference.localhost"
	breakout_rooms_muc = "{BREAKOUT}"
Component "{BREAKOUT}" "muc"
	muc_room_locking = false
"""


async def open_breakout_room(prosody: Server, room: str) -> str:
    """What Jitsi's module does for a moderator, with the fields that it sets."""
    breakout = f"0b6cb7f0-{room}@{BREAKOUT}"
    await prosody.module(f"""
        local room = muc.get_room_from_jid("{room}@conference.localhost");
        room._data.breakout_rooms = {{ ["{breakout}"] = "First" }};
        room._data.breakout_rooms_active = true;
        room:set_persistent(true);""")
    return breakout


async def close_meeting(prosody: Server, room: str) -> None:
    await prosody.module(f"""
        local room = muc.get_room_from_jid("{room}@conference.localhost");
        room:set_persistent(false);
        room:destroy();""")


async def switch(client: Client, room: str, breakout: str, nick: str) -> bool:
    await client.send(
        f"<presence type='unavailable' to='{client.room_jid(room)}/{nick}'><status>switch_room</status></presence>"
    )
    return (await client.join(breakout, nick=nick)).joined


async def kick(client: Client, room: str, nick: str) -> None:
    item = f"<item nick='{nick}' role='none'/>"
    query = f"<query xmlns='http://jabber.org/protocol/muc#admin'>{item}</query>"
    assert (await client.iq("set", query, to=client.room_jid(room))).get("type") == "result"


async def test_who_is_in_the_meeting_moves_without_a_question(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        breakout = await open_breakout_room(prosody, room)
        assert await switch(bob, room, breakout, "bob")
        assert await switch(ann, room, breakout, "ann"), "also while the main room is empty"
        assert len(prosody.backend.asked("validate-access", room)) == 2
        assert len(prosody.backend.asked("validate-access")) == 2
        await close_meeting(prosody, room)


async def test_who_was_kicked_does_not_get_into_a_breakout_room(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        await eve.join(room, nick="eve")
        breakout = await open_breakout_room(prosody, room)
        await kick(ann, room, "eve")
        assert str((await eve.join(breakout, nick="eve")).error) == "cancel/not-allowed"
        await close_meeting(prosody, room)


async def test_who_was_kicked_out_of_a_breakout_room_does_not_get_into_it_again(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        await eve.join(room, nick="eve")
        breakout = await open_breakout_room(prosody, room)
        assert await switch(ann, room, breakout, "ann")
        assert await switch(eve, room, breakout, "eve")
        await kick(ann, breakout, "eve")
        assert str((await eve.join(breakout, nick="eve")).error) == "cancel/not-allowed"
        await close_meeting(prosody, room)


async def test_who_was_kicked_and_is_let_in_again_may_move(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        await eve.join(room, nick="eve")
        breakout = await open_breakout_room(prosody, room)
        await kick(ann, room, "eve")
        assert (await eve.join(room, nick="eve")).joined
        assert await switch(eve, room, breakout, "eve")
        await close_meeting(prosody, room)


@pytest.mark.parametrize("reloaded", [None, "muc_webhook", "muc"])
async def test_who_is_denied_does_not_get_into_a_breakout_room(
    start_prosody: StartProsody, room: str, reloaded: str | None
) -> None:
    prosody = await start_prosody(fresh=reloaded is not None, extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        await eve.join(room, nick="eve")
        breakout = await open_breakout_room(prosody, room)
        await eve.leave(room, "eve")
        prosody.backend.on("validate-access", deny("No longer"))
        assert (await eve.join(room, nick="eve")).denied
        if reloaded:
            await prosody.reload(reloaded)
        assert str((await eve.join(breakout, nick="eve")).error) == "cancel/not-allowed"
        await close_meeting(prosody, room)


async def test_who_never_was_in_the_meeting_does_not_get_into_a_breakout_room(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        breakout = await open_breakout_room(prosody, room)
        assert str((await eve.join(breakout, nick="eve")).error) == "cancel/not-allowed"
        await close_meeting(prosody, room)


async def test_jicofo_and_recorders_get_in(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="recorder", domain="recorder.localhost") as recorder,
    ):
        await ann.join(room, nick="ann")
        breakout = await open_breakout_room(prosody, room)
        assert (await focus.join(breakout, nick="focus")).joined
        assert (await recorder.join(breakout, nick="recorder")).joined
        await close_meeting(prosody, room)


async def test_a_gate_that_starts_in_the_middle_knows_who_came_from_the_meeting(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True, extra=HOSTS)
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        breakout = await open_breakout_room(prosody, room)
        await prosody.lua(f'prosody.full_sessions["{ann.jid}"].jitsi_breakout_main_jid = "{ann.room_jid(room)}"')
        await prosody.unload()
        await prosody.load()
        assert await switch(ann, room, breakout, "ann")


async def test_who_was_in_an_earlier_meeting_of_the_name_does_not_get_in(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await eve.join(room, nick="eve")
        await prosody.lua(f'prosody.full_sessions["{eve.jid}"].jitsi_breakout_main_jid = "{eve.room_jid(room)}"')
        await prosody.destroy(room)
        await ann.join(room, nick="ann")
        breakout = await open_breakout_room(prosody, room)
        assert await switch(ann, room, breakout, "ann")
        assert str((await eve.join(breakout, nick="eve")).error) == "cancel/not-allowed"
        await close_meeting(prosody, room)


async def test_a_room_that_belongs_to_no_meeting_is_for_jitsi_to_refuse(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=HOSTS)
    async with Client.connect(prosody) as ann:
        assert (await ann.join(f"{room}@{BREAKOUT}")).joined, "there is no such module in this test"


async def test_a_component_that_comes_later_is_guarded_too(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, extra=HOSTS)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.join(room, nick="ann")
        breakout = await open_breakout_room(prosody, room)
        await prosody.lua(f"""
            local hostmanager = require "core.hostmanager";
            assert(hostmanager.deactivate("{BREAKOUT}"));
            assert(hostmanager.activate("{BREAKOUT}"));""")
        assert str((await eve.join(breakout, nick="eve")).error) == "cancel/not-allowed"
