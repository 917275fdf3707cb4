"""What frontend/room-config.js does in a page that stands in for jitsi-meet's, in a real meeting."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.browser.conftest import Meet
from tests.browser.meeting import DESIGNS, JOINED, User
from tests.prosody.conftest import Server, eventually
from tests.prosody.jitsi import COMPONENTS, MODULES
from tests.prosody.ordering import in_room, order
from tests.rig import jitsi
from tests.rig.answers import deny, reply

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.jitsi]

designs = pytest.mark.parametrize("design", DESIGNS)
metadata = pytest.mark.skipif(
    jitsi.INSTALLED is not None, reason="the hosts of the rig do not announce Jitsi's own metadata component"
)
transports = pytest.mark.parametrize("transport", ["bosh", "websocket"])

TAKEN_AWAY: dict[str, list[str]] = {
    "breakoutRoomsEnabled": ["make breakout rooms", "join breakout rooms"],
    "chatEnabled": ["chat"],
    "closedCaptionsEnabled": ["closedcaptions"],
    "filmstripEnabled": ["filmstrip"],
    "kickParticipantsEnabled": ["remove"],
    "liveStreamingEnabled": ["livestreaming"],
    "muteAllEnabled": ["mute all"],
    "noiseSuppressionEnabled": ["noisesuppression"],
    "participantNameEditingEnabled": ["change the name"],
    "pollsEnabled": ["polls"],
    "privateMessagesEnabled": ["write privately"],
    "raiseHandEnabled": ["raisehand"],
    "reactionsEnabled": ["react"],
    "recordingEnabled": ["recording"],
    "screenShareEnabled": ["desktop", "shareaudio"],
    "securityEnabled": ["security"],
    "sharedDocumentEnabled": ["etherpad"],
    "speakerStatsEnabled": ["stats"],
    "tileViewEnabled": ["tileview"],
    "virtualBackgroundsEnabled": ["select-background"],
    "whiteboardEnabled": ["whiteboard"],
}
"""What the page no longer offers when the setting is false. About encryption, the page decides when it joins."""

TITLE = 'Sales <b onclick="x">&quot;Q3&quot;</b> &amp; more \\ %22 Ü 😀'
CANCELLED = "Meeting <i>has been</i> cancelled &amp; moved 😀"

Configure = Callable[[Server, str, dict[str, Any]], Awaitable[Any]]


async def by_message(prosody: Server, room: str, config: dict[str, Any]) -> None:
    await order(prosody, "refresh", room, configuration=config)


async def by_metadata(prosody: Server, room: str, config: dict[str, Any]) -> None:
    """Only there, while the module's own ROOM_CONFIG stays as it was."""
    written = f"room.jitsiMetadata.roomConfig = require 'util.json'.decode({json.dumps(json.dumps(config))})"
    await in_room(prosody, room, f'{written}; host.events.fire_event("room-metadata-changed", {{ room = room }})')


async def with_metadata(meet: Meet) -> Server:
    return await meet(muc_modules=MODULES, extra=COMPONENTS)


async def offered(user: User) -> set[str]:
    found = await user.tab.run("APP.offers()")
    return {*found["toolbar"], *found["menus"]}


async def on_screen(user: User) -> str:
    """The text of the script's dialog and notice."""
    shown = "[...document.body.children].map((e) => e.shadowRoot ? e.shadowRoot.firstElementChild.innerText : '')"
    return str(await user.tab.run(f"{shown}.join('')"))


async def is_on_screen(user: User, text: str) -> bool:
    return text in await on_screen(user)


async def value(user: User, expression: str) -> Any:
    return await user.tab.run(expression)


@pytest.mark.parametrize(
    ("configure", "start"),
    [(by_message, Meet.__call__), pytest.param(by_metadata, with_metadata, marks=metadata)],
    ids=["message", "metadata"],
)
async def test_each_setting_is_applied_and_changed_back(
    meet: Meet, room: str, configure: Configure, start: Callable[[Meet], Awaitable[Server]]
) -> None:
    prosody = await start(meet)
    ann = await meet.user("jitsi")
    assert await ann.join(room) == JOINED
    all_offers = await offered(ann)
    for setting, gone in TAKEN_AWAY.items():
        assert all_offers.issuperset(gone)
        await configure(prosody, room, {setting: False})
        await eventually(lambda: offered(ann), all_offers.difference(gone))
    await configure(prosody, room, {})
    await eventually(lambda: offered(ann), all_offers)


@metadata
async def test_without_encryption_the_page_joins_without_it(meet: Meet, room: str) -> None:
    prosody = await with_metadata(meet)
    prosody.backend.on("room-created", reply({"e2eeEnabled": False}))
    ann = await meet.user("jitsi")
    assert await ann.join(room) == JOINED
    assert "encrypt" not in await offered(ann)


async def test_only_the_buttons_of_a_list_are_there(meet: Meet, room: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"toolbarButtons": ["hangup", "chat", "microphone", "no-such"]}))
    ann = await meet.user("jitsi")
    assert await ann.join(room) == JOINED
    await eventually(lambda: value(ann, "APP.offers().toolbar"), ["microphone", "chat", "hangup"])


@designs
@transports
async def test_a_title_of_any_kind_is_shown_as_it_was_typed(meet: Meet, room: str, transport: str, design: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"meetingTitle": TITLE, "meetingDescription": TITLE}))
    ann = await meet.user("jitsi", transport=transport, design=design)
    assert await ann.join(room) == JOINED
    await eventually(lambda: value(ann, "document.querySelector('h1').textContent"), TITLE)
    await eventually(lambda: value(ann, "document.querySelector('.notification').textContent"), TITLE + TITLE)


@metadata
async def test_a_title_in_the_metadata_is_there_before_the_join(meet: Meet, room: str) -> None:
    prosody = await with_metadata(meet)
    prosody.backend.on("room-created", reply({"meetingTitle": TITLE}))
    ann = await meet.user("jitsi")
    assert await ann.join(room) == JOINED
    assert await value(ann, "document.querySelector('h1').textContent") == TITLE


async def test_settings_are_there_after_the_lobby_too(meet: Meet, room: str) -> None:
    prosody = await meet(muc_modules=("muc_webhook", "rig_lobby"))
    prosody.backend.on("room-created", reply({"lobbyEnabled": True, "chatEnabled": False}))
    ann = await meet.user("jitsi")
    assert (await ann.join(room, name="Ann"))[:2] == ["CONFERENCE_FAILED", "conference.connectionError.membersOnly"]
    await in_room(prosody, room, f'room:set_affiliation(true, "{ann.jid.partition("/")[0]}", "member")')
    assert await ann.join_again() == JOINED
    await eventually(lambda: value(ann, "APP.offers().toolbar.includes('chat')"), False)


async def test_newcomers_are_muted(meet: Meet, room: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"muteOnJoin": True, "videoOffOnJoin": True}))
    ann = await meet.user("jitsi")
    assert await ann.join(room) == JOINED
    muted = "APP.store.getState()['features/base/media']"
    await eventually(lambda: value(ann, muted), {"audio": True, "video": True})


async def test_a_participant_who_sends_the_same_message_changes_nothing(meet: Meet, room: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    ann, eve = await meet.user("jitsi"), await meet.user()
    assert await ann.join(room) == JOINED
    assert await eve.join(room) == JOINED
    await ann.expect("USER_JOINED")
    for message in (
        {"type": "ROOM_CONFIG", "config": {}},
        {"type": "JOIN_REFUSED", "reason": "Log in at evil.example"},
        {"type": "MEETING_ENDING", "minutesLeft": 1},
    ):
        await eve.tab.run(f"conference.sendMessage({json.dumps(message | {'jitsi': 1})}, '', false)")
    await by_message(prosody, room, {"pollsEnabled": False, "chatEnabled": False})
    await eventually(lambda: value(ann, "APP.offers().toolbar.includes('polls')"), False)
    assert "chat" not in await offered(ann)
    assert await on_screen(ann) == ""


@designs
@transports
async def test_the_reason_of_a_refusal_is_on_the_screen(meet: Meet, room: str, transport: str, design: str) -> None:
    prosody = await meet()
    prosody.backend.on("validate-access", deny(CANCELLED))
    eve = await meet.user("jitsi", transport=transport, design=design)
    assert (await eve.join(room))[0] == "CONFERENCE_FAILED"
    assert CANCELLED in await on_screen(eve)
    prosody.backend.on("validate-access", reply({"allowed": True}))
    assert await eve.join_again() == JOINED
    assert await on_screen(eve) == ""


async def test_a_message_that_comes_while_the_user_closes_another_is_shown(meet: Meet, room: str) -> None:
    prosody = await meet()
    prosody.backend.on("validate-access", deny("Not yet"))
    eve = await meet.user("jitsi")
    await eve.join(room)
    close = "[...document.body.children].find((e) => e.shadowRoot).shadowRoot.querySelector('dialog').close()"
    say = "conference.eventEmitter.emit(JitsiMeetJS.events.conference.NON_PARTICIPANT_MESSAGE_RECEIVED, null, "
    message = json.dumps({"type": "JOIN_REFUSED", "reason": "Never"})
    await value(eve, f"{close}; {say}{message}); new Promise((shown) => setTimeout(shown, 100))")
    assert "Never" in await on_screen(eve)


@pytest.mark.parametrize(
    ("url", "leads_to"), [("https://login.example.com/?a=b&c", True), ("https://evil.example", False)]
)
async def test_a_refusal_leads_to_a_login_that_is_allowed(meet: Meet, room: str, url: str, leads_to: bool) -> None:
    prosody = await meet()
    answer = {"allowed": False, "reason": "No", "meetingTitle": "Review", "requireAuth": True, "redirectUrl": url}
    prosody.backend.on("validate-access", reply(answer))
    eve = await meet.user("jitsi")
    await eve.join(room)
    shown = await on_screen(eve)
    assert shown.startswith("Review")
    assert "You have to log in" in shown
    link = "[...document.body.children].map((e) => e.shadowRoot && e.shadowRoot.querySelector('a')).filter(Boolean)"
    assert await value(eve, f"{link}.map((a) => a.href)") == ([url] if leads_to else [])


@transports
async def test_the_end_of_a_meeting_is_counted_down(meet: Meet, room: str, transport: str) -> None:
    prosody = await meet(options={"muc_webhook_duration_warning": 0.05})
    prosody.backend.on("room-created", reply({"maxDurationMinutes": 0.06}))
    ann = await meet.user("jitsi", transport=transport)
    assert await ann.join(room) == JOINED
    await eventually(lambda: is_on_screen(ann, "This meeting ends in 0:0"), True)
    await ann.expect("CONFERENCE_FAILED")
    assert await on_screen(ann) == ""


async def test_the_end_of_a_meeting_in_a_room_that_stays_is_explained(meet: Meet, room: str) -> None:
    prosody = await meet(options={"muc_webhook_duration_warning": 0})
    prosody.backend.on("room-created", reply({"maxDurationMinutes": 0.02, "persistent": True}))
    ann = await meet.user("jitsi")
    assert await ann.join(room) == JOINED
    await ann.expect("KICKED")
    assert "The meeting has ended" in await on_screen(ann)
    assert "its longest duration" in await on_screen(ann)


@pytest.mark.skipif(jitsi.INSTALLED is None, reason="lib-jitsi-meet of 2020 does not tell why somebody was put out")
async def test_who_is_put_out_by_the_service_reads_why(meet: Meet, room: str) -> None:
    prosody = await meet()
    ann = await meet.user("jitsi")
    assert await ann.join(room) == JOINED
    await order(prosody, "kick", room, user=ann.jid.partition("/")[0], reason="Your booking was cancelled")
    await ann.expect("KICKED")
    assert "Your booking was cancelled" in await on_screen(ann)
