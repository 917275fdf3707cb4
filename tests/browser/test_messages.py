"""What the room says arrives in the page as it was meant."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Meet
from tests.browser.meeting import JOINED
from tests.rig.answers import reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

TITLES = {
    'R&D: &quot;Q3&quot; &amp; a &lt;b&gt;, it&#39;s "x" \\ 100%22 Ü 😀 \ufffe\u0001': "\ufffd\ufffd",
    "x&quot;,&quot;chatEnabled&quot;:false,&quot;z&quot;:&quot;y": "",
}
"""What is shown in place of the last characters, which XML lacks."""


@pytest.mark.parametrize("title", TITLES, ids=["any", "adds-settings"])
@pytest.mark.parametrize("transport", ["bosh", "websocket"])
async def test_a_title_of_any_kind_arrives(meet: Meet, room: str, title: str, transport: str) -> None:
    """lib-jitsi-meet replaces entities in the text of a message before it reads the JSON."""
    prosody = await meet()
    prosody.backend.on("room-created", reply({"meetingTitle": title}))
    ann = await meet.user(transport=transport)
    assert await ann.join(room) == JOINED
    shown = title[: len(title) - len(TITLES[title])] + TITLES[title]
    assert (await ann.expect_message("ROOM_CONFIG"))["config"] == {"meetingTitle": shown}


async def test_what_a_participant_sends_is_not_the_rooms(meet: Meet, room: str) -> None:
    await meet()
    ann, eve = await meet.user(), await meet.user()
    assert await ann.join(room) == JOINED
    assert await eve.join(room) == JOINED
    await ann.expect("USER_JOINED")
    await eve.tab.run(
        "conference.sendMessage({ type: 'ROOM_CONFIG', jitsi: 1, config: { chatEnabled: true } }, '', false)"
    )
    await eve.tab.run("conference.sendTextMessage('done')")
    await ann.expect("MESSAGE_RECEIVED")
    assert [message["config"] for message in await ann.messages() if message["type"] == "ROOM_CONFIG"] == [{}]


@pytest.mark.parametrize("transport", ["bosh", "websocket"])
async def test_the_end_of_a_meeting_is_announced_and_explained(meet: Meet, room: str, transport: str) -> None:
    prosody = await meet(options={"muc_webhook_duration_warning": 0.02})
    prosody.backend.on("room-created", reply({"maxDurationMinutes": 0.04}))
    ann = await meet.user(transport=transport)
    assert await ann.join(room) == JOINED
    assert (await ann.expect_message("MEETING_ENDING"))["type"] == "MEETING_ENDING"
    line = await ann.expect("MESSAGE_RECEIVED")
    assert "ends in" in line[2], line
    failure = await ann.expect("CONFERENCE_FAILED", "CONFERENCE_LEFT", "KICKED")
    reason = "The meeting has reached its limit of 0.04 minutes"
    assert failure[:3] == ["CONFERENCE_FAILED", "conference.destroyed", reason]


async def test_who_is_kicked_can_come_back_only_after_another_question(meet: Meet, room: str) -> None:
    prosody = await meet()
    eve = await meet.user()
    assert await eve.join(room) == JOINED
    await prosody.module(f"""
        local room = muc.get_room_from_jid("{room}@{prosody.muc}");
        for nick, occupant in pairs(room._occupants) do
            if not nick:find("/focus$") then room:set_role(true, nick, nil, "You are out") end
        end""")
    await eve.expect("KICKED")
    again = await meet.user()
    assert await again.join(room) == JOINED
    assert len(prosody.backend.asked("validate-access", room)) == 2


async def test_the_order_to_record_goes_to_the_first_who_comes(meet: Meet, room: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"autoRecord": True, "recordingEnabled": True}))
    ann, bob = await meet.user(), await meet.user()
    assert await ann.join(room) == JOINED
    assert await bob.join(room) == JOINED
    await ann.expect_message("START_RECORDING")
    await bob.expect_message("ROOM_CONFIG")
    assert [message["type"] for message in await bob.messages()] == ["ROOM_CONFIG"]


async def test_a_participant_who_is_no_moderator_cannot_start_a_recording(meet: Meet, room: str) -> None:
    await meet()
    ann = await meet.user()
    assert await ann.join(room) == JOINED
    started = "conference.startRecording({ mode: 'file' }).then(() => 'started', () => 'refused')"
    assert await ann.tab.run(started) == "refused"
