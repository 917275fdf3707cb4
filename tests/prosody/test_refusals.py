"""A user who is refused learns why: the page gets the reason before the error ends the join."""

from __future__ import annotations

from typing import Any

import pytest

from tests.prosody.conftest import Server
from tests.rig.answers import deny, raw, reply
from tests.rig.xmpp import JITMEET, Client, StanzaError

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def refusal_of(client: Client, room: str) -> tuple[list[dict[str, Any]], StanzaError | None]:
    """The JSON that came before the error, and the error."""
    result = await client.join(room)
    return client.json_messages(room), result.error


@pytest.mark.parametrize("transport", ["tcp", "bosh", "websocket"])
async def test_the_page_gets_the_reason_before_the_error(prosody: Server, room: str, transport: str) -> None:
    prosody.backend.on("validate-access", deny("Cancelled"))
    async with Client.connect(prosody, transport=transport) as ann:
        before, error = await refusal_of(ann, room)
        assert before == [{"type": "JOIN_REFUSED", "reason": "Cancelled"}]
        assert error == StanzaError("cancel", "not-allowed", "Cancelled")
        assert room not in await prosody.rooms()


async def test_the_page_gets_what_else_the_service_says(prosody: Server, room: str) -> None:
    said = {"status": "CANCELLED", "requireAuth": False, "redirectUrl": "https://example.com/m?id=1&x=&quot;"}
    prosody.backend.on("validate-access", reply({"allowed": False, "reason": "No", "meetingTitle": "R&D", **said}))
    async with Client.connect(prosody) as ann:
        await ann.begin_join(room)
        message = await ann.expect(lambda stanza: stanza.find(f"{JITMEET}json-message") is not None)
        assert (message.get("from"), message.get("to"), message.get("type")) == (
            ann.room_jid(room),
            ann.jid,
            "groupchat",
        )
        assert "&" not in (message.findtext(f"{JITMEET}json-message") or "&")
        ann.inbox.append(message)
        assert ann.json_messages(room) == [{"type": "JOIN_REFUSED", "reason": "No", "title": "R&D", **said}]


@pytest.mark.parametrize("value", ["null", "17", "[]", '""', '"\\u0001 "'])
async def test_what_has_a_wrong_type_is_left_out(prosody: Server, room: str, value: str) -> None:
    fields = ", ".join(
        f'"{name}": {value}' for name in ("status", "requireAuth", "redirectUrl", "meetingTitle", "reason")
    )
    prosody.backend.on("validate-access", raw(f'{{"allowed": false, {fields}}}'))
    async with Client.connect(prosody) as ann:
        text = "You are not allowed to join this meeting"
        assert await refusal_of(ann, room) == (
            [{"type": "JOIN_REFUSED", "reason": text}],
            StanzaError("cancel", "not-allowed", text),
        )


async def test_a_refused_room_is_explained_too(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", raw(b'{"reason": null, "message": "No such meeting"}', status=404))
    async with Client.connect(prosody) as ann:
        assert await refusal_of(ann, room) == (
            [{"type": "JOIN_REFUSED", "reason": "No such meeting"}],
            StanzaError("cancel", "not-allowed", "No such meeting"),
        )


async def test_who_is_let_in_or_cannot_be_decided_about_gets_no_such_message(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        assert not [m for m in (await ann.join(room, nick="ann")).messages if m["type"] == "JOIN_REFUSED"]
        prosody.backend.on("validate-access", reply({}, status=500))
        before, error = await refusal_of(bob, room)
        assert before == []
        assert str(error) == "wait/remote-server-timeout"
