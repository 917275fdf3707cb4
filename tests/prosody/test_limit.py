"""maxParticipants: how many occupants a room has at most, and whose place is whose."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.story import rename
from tests.rig.answers import reply
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

BREAKOUT_ROOMS = 'Component "breakout.localhost" "muc"\n\tmodules_enabled = { "rig_breakout" }\n'


def limit(prosody: Server, room: str, most: int) -> None:
    prosody.backend.on("room-created", reply({"maxParticipants": most}), room=room)


# -- sessions


async def test_four_sessions_under_one_nick_are_one_occupant_and_stay_so(prosody: Server, room: str) -> None:
    limit(prosody, room, 1)
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(Client.connect(prosody, user="bob")) for _ in range(4)]
        assert [(await each.join(room, nick="bob")).joined for each in sessions] == [True] * 4
        for number, each in enumerate(sessions):
            await rename(each, room, f"bob{number}", with_x=number % 2 == 0)
        assert await prosody.occupants(room) == ["bob"]


async def test_a_session_takes_a_nick_of_its_own_while_there_is_a_place(prosody: Server, room: str) -> None:
    limit(prosody, room, 2)
    async with AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(Client.connect(prosody, user="bob")) for _ in range(3)]
        for each in sessions:
            await each.join(room, nick="bob")
        for number, each in enumerate(sessions):
            await rename(each, room, f"bob{number}")
        assert await prosody.occupants(room) == ["bob", "bob0"]


async def test_a_full_room_lets_its_occupants_change_their_nicks(prosody: Server, room: str) -> None:
    limit(prosody, room, 2)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        await rename(ann, room, "anna")
        await rename(bob, room, "bobby", with_x=True)
        assert await prosody.occupants(room) == ["anna", "bobby"]


# -- breakout rooms


async def open_breakout_room(prosody: Server, room: str) -> str:
    """What Jitsi's module does with the main room."""
    breakout = f"{room}@breakout.localhost"
    await prosody.module(f"""
        local main = muc.get_room_from_jid("{room}@conference.localhost")
        main._data.breakout_rooms = {{ ["{breakout}"] = "Breakout" }}
        main._data.breakout_rooms_active = true
        main:set_persistent(true)""")
    return breakout


async def switch(client: Client, room: str, nick: str) -> None:
    """Leaves a room for another one, as Jitsi's frontend does, and does not join that yet."""
    to = f"{client.room_jid(room)}/{nick}"
    await client.send(f"<presence type='unavailable' to='{to}'><status>switch_room</status></presence>")
    await client.ping()


async def test_who_is_in_a_breakout_room_keeps_the_place(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(extra=BREAKOUT_ROOMS)
    limit(prosody, room, 2)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob, Client.connect(prosody) as cat:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        breakout = await open_breakout_room(prosody, room)
        await switch(bob, room, "bob")
        assert (await cat.join(room, nick="cat")).denied, "bob is on the way"
        assert (await bob.join(breakout, nick="bob")).joined
        await is_long_ago(prosody, room)
        assert (await cat.join(room, nick="cat")).denied, "bob is there"
        await switch(bob, breakout, "bob")
        assert (await cat.join(room, nick="cat")).denied, "bob is on the way back"
        assert (await bob.join(room, nick="bob")).joined
        await bob.leave(room, "bob")
        assert (await cat.join(room, nick="cat")).joined


async def is_long_ago(prosody: Server, room: str) -> None:
    """Makes all that was seen of who is on the way half a minute old."""
    await prosody.module(f"""
        local away = webhook.module.save().lives["{room}@conference.localhost"].away
        for jid, at in pairs(away) do away[jid] = at - 31 end""")


@pytest.mark.parametrize("how", ["leaves", "breaks off", "never arrives", "is kicked"])
async def test_who_is_gone_for_good_keeps_no_place(start_prosody: StartProsody, room: str, how: str) -> None:
    prosody = await start_prosody(extra=BREAKOUT_ROOMS)
    limit(prosody, room, 2)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob, Client.connect(prosody) as cat:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        breakout = await open_breakout_room(prosody, room)
        await switch(bob, room, "bob")
        if how != "never arrives":
            await bob.join(breakout, nick="bob")
        if how == "leaves":
            await bob.leave(breakout, "bob")
        elif how == "breaks off":
            await bob.rst()
            await eventually(lambda: prosody.has_session(bob.jid), False)
        else:
            await prosody.lua(f"""
                local muc = prosody.hosts["breakout.localhost"].modules.muc
                local room = muc.get_room_from_jid("{breakout}")
                if room then room:set_role(true, room.jid .. "/bob", nil) end""")
            await is_long_ago(prosody, room)
        assert (await cat.join(room, nick="cat")).joined


# -- connections that are gone


async def test_a_broken_connection_keeps_its_place_while_it_can_be_resumed(prosody: Server, room: str) -> None:
    limit(prosody, room, 1)
    async with Client.connect(prosody, user="ann", smacks=True) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await ann.rst()
        assert (await bob.join(room, nick="bob")).denied
        again = await Client.login(prosody, user="ann")
        await again.resume(ann)
        await again.leave(room, "ann")
        assert (await bob.join(room, nick="bob")).joined
        await again.close()
