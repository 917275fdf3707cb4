"""The lobby of a meeting is for those whom the gate has let in, and who were not put out since."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.prosody.jitsi import in_room
from tests.prosody.ordering import SIDE_ROOMS, order
from tests.prosody.test_breakout_rooms import kick
from tests.rig import jitsi
from tests.rig.answers import deny, reply
from tests.rig.xmpp import Client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.jitsi]

MODULES = ("rig_lobby", "muc_webhook")
NOT_ALLOWED = "cancel/not-allowed"
TO_THE_LOBBY = "auth/registration-required"


async def start(start_prosody: StartProsody, *, fresh: bool = False) -> Server:
    extra = SIDE_ROOMS if jitsi.INSTALLED is None else ""
    return await start_prosody(muc_modules=MODULES, extra=extra, fresh=fresh)


@asynccontextmanager
async def meeting(prosody: Server, room: str) -> AsyncIterator[Client]:
    """With a lobby; gives its moderator."""
    prosody.backend.on("room-created", reply({"lobbyEnabled": True, "moderators": ["ann@auth.localhost"]}))
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody, user="ann") as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        yield ann


async def lobby_of(prosody: Server, room: str) -> str:
    return str(await in_room(prosody, room, "return room._data.lobbyroom"))


async def enter_lobby(prosody: Server, room: str, client: Client, nick: str) -> str:
    """The error, or "" if the user is in the lobby."""
    result = await client.join(await lobby_of(prosody, room), nick=nick)
    return "" if result.joined else str(result.error)


async def test_who_is_sent_to_the_lobby_enters_it(start_prosody: StartProsody, room: str) -> None:
    prosody = await start(start_prosody)
    async with meeting(prosody, room), Client.connect(prosody) as bob:
        assert str((await bob.join(room, nick="bob")).error) == TO_THE_LOBBY
        assert await enter_lobby(prosody, room, bob, "bob") == ""


async def test_a_moderator_enters_the_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start(start_prosody)
    async with meeting(prosody, room) as ann:
        assert await enter_lobby(prosody, room, ann, "ann") == ""


async def test_who_was_denied_does_not_enter_the_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start(start_prosody)
    async with meeting(prosody, room), Client.connect(prosody) as eve:
        await eve.join(room, nick="eve")
        prosody.backend.on("validate-access", deny("No"))
        assert str((await eve.join(room, nick="eve")).error) == NOT_ALLOWED
        assert await enter_lobby(prosody, room, eve, "eve") == NOT_ALLOWED


async def test_who_was_not_asked_about_does_not_enter_the_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start(start_prosody)
    async with meeting(prosody, room), Client.connect(prosody) as eve:
        await eve.join(f"other-{room}", nick="eve")
        assert await enter_lobby(prosody, room, eve, "eve") == NOT_ALLOWED


async def test_who_was_kicked_is_asked_about_again_before_the_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start(start_prosody)
    async with meeting(prosody, room) as ann, Client.connect(prosody) as eve:
        await in_room(prosody, room, f'room:set_affiliation(true, "{eve.jid.partition("/")[0]}", "member")')
        await eve.join(room, nick="eve")
        await kick(ann, room, "eve")
        await in_room(prosody, room, f'room:set_affiliation(true, "{eve.jid.partition("/")[0]}", nil)')
        assert await enter_lobby(prosody, room, eve, "eve") == NOT_ALLOWED
        assert str((await eve.join(room, nick="eve")).error) == TO_THE_LOBBY
        assert await enter_lobby(prosody, room, eve, "eve") == ""


async def test_who_was_put_out_by_an_order_does_not_enter_the_lobby_again(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start(start_prosody)
    async with meeting(prosody, room), Client.connect(prosody, user="eve") as eve:
        await eve.join(room, nick="eve")
        await enter_lobby(prosody, room, eve, "eve")
        await order(prosody, "kick", room, user="eve@auth.localhost", reason="Go")
        assert await enter_lobby(prosody, room, eve, "eve") == NOT_ALLOWED
        await eve.join(room, nick="eve")
        assert await enter_lobby(prosody, room, eve, "eve") == "", "asked again, the service lets eve in"


async def test_who_was_put_out_by_an_order_while_away_does_not_enter_the_lobby(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start(start_prosody)
    async with meeting(prosody, room), Client.connect(prosody, user="eve") as eve:
        await eve.join(room, nick="eve")
        await order(prosody, "kick", room, user="eve@auth.localhost", reason="Go")
        assert await enter_lobby(prosody, room, eve, "eve") == NOT_ALLOWED


async def test_a_reload_keeps_nobody_out_of_the_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start(start_prosody, fresh=True)
    async with meeting(prosody, room), Client.connect(prosody) as bob:
        await bob.join(room, nick="bob")
        await prosody.reload()
        assert await enter_lobby(prosody, room, bob, "bob") == ""
