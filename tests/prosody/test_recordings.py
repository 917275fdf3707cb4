"""What the meeting service hears of recordings: what jicofo tells the room."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests.prosody.conftest import Server, StartProsody
from tests.prosody.story import OPTIONS, story
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def watched(start_prosody: StartProsody) -> Server:
    return await start_prosody(options=OPTIONS)


async def says(
    client: Client, room: str, status: str, session: str = "s1", *, nick: str = "focus", **more: str
) -> None:
    """Puts the state of a recording into the client's presence, as jicofo does."""
    attributes = {"status": status, "session_id": session, "recording_mode": "file", **more}
    text = " ".join(f"{name}='{value}'" for name, value in attributes.items())
    element = f"<jibri-recording-status xmlns='http://jitsi.org/protocol/jibri' {text}/>"
    await client.send(f"<presence to='{client.room_jid(room)}/{nick}'>{element}</presence>")
    await client.ping()


async def recordings(prosody: Server, room: str) -> list[str]:
    return [each for each in await story(prosody, room) if each.split()[0].isupper()]


async def test_a_recording_is_started_and_stopped_once(watched: Server, room: str) -> None:
    async with Client.connect(watched, user="focus") as focus, Client.connect(watched) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        by_ann = {"initiator": f"{ann.room_jid(room)}/ann"}
        await says(focus, room, "pending")
        assert await recordings(watched, room) == []
        for _ in range(3):  # jicofo repeats it with everything else that it says
            await says(focus, room, "on", **by_ann)
        assert await recordings(watched, room) == ["STARTED s1"]
        for _ in range(3):
            await says(focus, room, "off", **by_ann)
        assert await recordings(watched, room) == ["STARTED s1", "STOPPED s1"]
        await says(focus, room, "on", "s2")
        assert (await recordings(watched, room))[2:] == ["STARTED s2"]
    started = watched.backend.asked("recording", room)[0].body
    assert (started["recordingMode"], started["actorNick"]) == ("file", "ann")
    assert started["actorJid"] == ann.jid.partition("/")[0]
    assert "error" not in started


@pytest.mark.parametrize("begun", [False, True], ids=["before it began", "later"])
async def test_a_recording_that_fails_says_why(watched: Server, room: str, begun: bool) -> None:
    async with Client.connect(watched, user="focus") as focus, Client.connect(watched) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await says(focus, room, "pending")
        if begun:
            await says(focus, room, "on")
        for _ in range(2):
            await says(focus, room, "off", failure_reason="busy")
        assert await recordings(watched, room) == (["STARTED s1"] if begun else []) + ["FAILED s1"]
    assert watched.backend.asked("recording", room)[-1].body["error"] == "busy"


async def test_a_recording_that_never_began_is_not_stopped(watched: Server, room: str) -> None:
    async with Client.connect(watched, user="focus") as focus, Client.connect(watched) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await says(focus, room, "pending")
        await says(focus, room, "off")
        assert await recordings(watched, room) == []


async def test_a_recording_ends_with_the_meeting(watched: Server, room: str) -> None:
    async with Client.connect(watched, user="focus") as focus, Client.connect(watched) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await says(focus, room, "on")
        await ann.leave(room, "ann")
        await focus.leave(room, "focus")
        assert (await story(watched, room))[1:] == [
            "STARTED s1",
            "left ann: left",
            "STOPPED s1",
            "destroyed: all_users_left",
        ]


async def test_a_participant_cannot_say_that_it_records(watched: Server, room: str) -> None:
    async with (
        Client.connect(watched) as eve,
        Client.connect(watched) as ann,
        Client.connect(watched, user="recorder", domain="recorder.localhost") as recorder,
    ):
        await ann.join(room, nick="ann")
        await eve.join(room, nick="focus")
        await recorder.join(room, nick="rec")
        await says(eve, room, "on")
        await says(ann, room, "on", nick="ann")
        await says(recorder, room, "on", nick="rec")
        assert await recordings(watched, room) == []


async def test_a_reload_repeats_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS)
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await says(focus, room, "on")
        await prosody.reload()
        await says(focus, room, "on")
        await prosody.unload()
        await prosody.load()
        await says(focus, room, "on")
        await says(focus, room, "off")
        assert await recordings(prosody, room) == ["STARTED s1", "STOPPED s1"]


async def test_a_long_error_hides_nothing(watched: Server, room: str) -> None:
    async with Client.connect(watched, user="focus") as focus, Client.connect(watched) as ann:
        await focus.join(room, nick="focus")
        await ann.join(room, nick="ann")
        await says(focus, room, "off", failure_reason="e" * 4_000)
        assert await recordings(watched, room) == ["FAILED s1"]
    assert watched.backend.asked("recording", room)[0].body["error"] == "e" * 1023
