"""Text of the meeting service reaches users whole, or repaired, and never harms their connections."""

from __future__ import annotations

import asyncio
import html
import json
import time

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import deny, raw, reply
from tests.rig.xmpp import CLIENT, JITMEET, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

BROKEN = {
    "U+FFFF escaped": (rb"A\uffffB", "A\ufffdB"),
    "U+FFFE": ("A\ufffeB".encode(), "A\ufffdB"),
    "a control character": (rb"A\u0001\u0000B", "A\ufffd\ufffdB"),
    "a raw control character": (b"A\x02B", "A\ufffdB"),
    "the first half of an emoji": (rb"Party \ud83d", "Party \ufffd"),
    "the second half": (rb"\ude00 party \ud83d\ude00", "\ufffd party 😀"),
    "a half as three bytes": (b"A\xed\xa0\xbdB", "A\ufffdB"),
    "Latin-1": (b"Zo\xeb B", "Zo\ufffd B"),
    "bytes that begin nothing": (b"A\x80\x80B\xc3", "A\ufffdB\ufffd"),
    "an escaped backslash before it": (rb"A\\ud83d", r"A\ud83d"),
}
WHOLE = {
    "DEL and C1": "A\x7f\x85B",
    "the last plane": "A\U0001ffff\U0010ffffB",
    "ampersands": "R&D &quot;Q3&quot; &amp; &#39; &lt;b> <b>",
    "more settings": 'x&quot;,&quot;chatEnabled&quot;:false,&quot;z&quot;:&quot;y","chatEnabled":false',
    "backslashes": '\\u0026 \\" \\\\',
}


async def title_for(client: Client, room: str) -> str:
    """The title as Jitsi's frontend reads it: it replaces the entities of HTML in the JSON first."""
    await client.begin_join(room)
    message = await client.expect(lambda stanza: stanza.find(f"{JITMEET}json-message") is not None)
    payload = message.findtext(f"{JITMEET}json-message") or ""
    config = json.loads(html.unescape(payload))["config"]
    assert config.keys() == {"meetingTitle", "chatEnabled"}
    assert config["chatEnabled"] is True
    return str(config["meetingTitle"])


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
@pytest.mark.parametrize("name", BROKEN)
async def test_what_xml_lacks_is_replaced_in_a_title(
    start_prosody: StartProsody, room: str, name: str, transport: str
) -> None:
    prosody = await start_prosody(options={"muc_webhook_subject": True})
    written, shown = BROKEN[name]
    prosody.backend.on("room-created", raw(b'{"chatEnabled":true,"meetingTitle":"%b"}' % written))
    async with Client.connect(prosody, transport=transport) as ann:
        assert await title_for(ann, room) == shown
        await ann.ping()
        subjects = [text for stanza in ann.inbox if (text := stanza.findtext(f"{CLIENT}subject")) is not None]
        assert subjects == [shown]


@pytest.mark.parametrize("name", BROKEN)
async def test_what_xml_lacks_is_replaced_in_a_reason(prosody: Server, room: str, name: str) -> None:
    written, shown = BROKEN[name]
    prosody.backend.on("validate-access", raw(b'{"allowed":false,"reason":"%b"}' % written))
    expected = "A B" if "control" in name else shown  # a reason is one line
    async with Client.connect(prosody) as ann:
        error = (await ann.join(room)).error
        assert error is not None
        assert error.text == expected
        await ann.ping()


@pytest.mark.parametrize("name", WHOLE)
async def test_everything_else_arrives_as_it_is(prosody: Server, room: str, name: str) -> None:
    title = WHOLE[name]
    prosody.backend.on("room-created", reply({"chatEnabled": True, "meetingTitle": title}))
    async with Client.connect(prosody) as ann:
        assert await title_for(ann, room) == title


@pytest.mark.parametrize("name", ["first", "second"])
async def test_settings_inside_of_others_are_repaired_too(prosody: Server, room: str, name: str) -> None:
    del name  # the second room is read by the shape of the first
    config = (
        rb'{"toolbarButtons":["a\uffff","b&quot;"],"audioQuality":{"n\u0001":["\ud83d",1e999,null]},"meetingId":1e999}'
    )
    prosody.backend.on("room-created", raw(config))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).config == {
            "toolbarButtons": ["a\ufffd", "b&quot;"],
            "audioQuality": {"n\ufffd": ["\ufffd"]},
        }


@pytest.mark.parametrize(
    "text", ["a" + " " * 80_000 + "b", " " * 80_000, "\x01" * 80_000, "é" * 80_000, "\t " * 40_000 + "b"]
)
async def test_a_long_reason_stops_nobody(prosody: Server, room: str, text: str) -> None:
    prosody.backend.on("validate-access", deny(text))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bystander:
        began = time.monotonic()
        joining = asyncio.create_task(ann.join(room))
        await prosody.backend.received("validate-access", room)
        await bystander.ping()
        error = (await joining).error
        assert time.monotonic() - began < 1
        assert error is not None
        assert error.text is not None
        assert 0 < len(error.text.encode()) <= 500


async def test_a_long_title_is_cut_between_characters(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"chatEnabled": True, "meetingTitle": "a" + "é" * 10_000}))
    async with Client.connect(prosody) as ann:
        assert await title_for(ann, room) == "a" + "é" * 4_999


async def test_a_name_that_is_too_long_keeps_nobody_out(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, name="é" * 40_000)).joined
        assert prosody.backend.asked("validate-access", room)[0].body["userName"] == "é" * 511
