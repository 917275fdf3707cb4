"""A join over BOSH needs no more requests than without the module: all that it sends leaves in one response."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.rig.answers import deny, hold, reply
from tests.rig.xmpp import CLIENT, BoshTransport, Client, error_of, json_message, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")


def contents(client: Client) -> list[list[str]]:
    """What came from rooms, response by response."""
    assert isinstance(client.transport, BoshTransport)
    named = [[name for each in response if (name := name_of(each))] for response in client.transport.responses]
    return [names for names in named if names]


def name_of(stanza: ET.Element) -> str | None:
    message = json_message(stanza)
    if "conference." not in stanza.get("from", "") or stanza.find(f"{CLIENT}subject") is not None:
        return None
    if message:
        return str(message["type"])
    if stanza.get("type") == "error":
        return str(error_of(stanza))
    return "joined" if "110" in statuses(stanza) else "presence"


async def test_a_join_is_one_response(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody, transport="bosh") as bob:
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        assert contents(bob) == [["presence", "joined", "ROOM_CONFIG"]]


async def test_a_join_that_waits_for_the_config_too_is_one_response(prosody: Server, room: str) -> None:
    slow = hold(reply({"chatEnabled": False}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody, transport="bosh") as ann:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("room-created", room)
        slow.release()
        await ann.await_join(room)
        assert contents(ann) == [["joined", "ROOM_CONFIG"]]


async def test_a_refusal_is_one_response(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", deny("No"))
    async with Client.connect(prosody, transport="bosh") as ann:
        await ann.join(room)
        assert contents(ann) == [["JOIN_REFUSED", "cancel/not-allowed"]]


async def test_what_comes_after_the_join_is_not_kept_back(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody, transport="bosh") as bob:
        await bob.join(room, nick="bob")
        await ann.join(room, nick="ann")
        await ann.send(f"<message type='groupchat' to='{ann.room_jid(room)}'><body>Hello</body></message>")
        await bob.expect(lambda stanza: stanza.findtext(f"{CLIENT}body") == "Hello", within=3)


async def test_an_error_in_another_module_keeps_nothing_back(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.module("""
        webhook.module:hook("muc-occupant-joined", function () error("broken on purpose") end, 100)""")
    async with Client.connect(prosody, transport="bosh") as ann:
        await ann.begin_join(room, "ann")
        await ann.ping()

        async def is_collecting() -> bool:
            return bool(await prosody.lua(f'return prosody.full_sessions["{ann.jid}"].bosh_processing'))

        await eventually(is_collecting, False)
    prosody.log_is_read()


async def test_a_session_that_another_module_ends_during_the_join_spoils_nothing(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.module("""
        webhook.module:hook("muc-occupant-joined", function (event) event.origin:close() end, 100)""")
    async with Client.connect(prosody, transport="bosh") as ann:
        await ann.begin_join(room, "ann")
        await ann.gone.wait()
    assert await prosody.occupants(room) == []
