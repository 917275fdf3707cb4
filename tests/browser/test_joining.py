"""What lib-jitsi-meet tells a page when its user joins, or may not."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Meet
from tests.browser.meeting import DESIGNS, JOINED
from tests.rig.answers import allow, deny, hold, reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

ways_in = pytest.mark.parametrize("design", DESIGNS)
transports = pytest.mark.parametrize("transport", ["bosh", "websocket"])


@transports
@ways_in
async def test_who_may_join_is_in_and_gets_the_config(meet: Meet, room: str, transport: str, design: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    ann = await meet.user(transport=transport, design=design)
    assert await ann.join(room) == JOINED
    assert await ann.expect_message("ROOM_CONFIG") == {"type": "ROOM_CONFIG", "config": {"chatEnabled": False}}


@transports
async def test_who_is_denied_gets_the_reason_before_the_failure(meet: Meet, room: str, transport: str) -> None:
    prosody = await meet()
    prosody.backend.on("validate-access", deny("Meeting has been cancelled"))
    eve = await meet.user(transport=transport)
    failure = await eve.join(room)
    assert failure[:2] == ["CONFERENCE_FAILED", "conference.connectionError.notAllowed"]
    assert await eve.messages() == [{"type": "JOIN_REFUSED", "reason": "Meeting has been cancelled"}]
    names = [name for name, *_ in await eve.events("NON_PARTICIPANT_MESSAGE_RECEIVED", "CONFERENCE_FAILED")]
    assert names == ["NON_PARTICIPANT_MESSAGE_RECEIVED", "CONFERENCE_FAILED"]


@transports
async def test_a_guest_of_a_domain_of_its_own_who_is_denied_fails_to_connect(
    meet: Meet, room: str, transport: str
) -> None:
    prosody = await meet()
    prosody.backend.on("validate-access", deny("Meeting has been cancelled"))
    eve = await meet.user(transport=transport, design="anonymousdomain")
    assert (await eve.join(room))[:2] == ["CONFERENCE_FAILED", "conference.connectionError"]


@ways_in
async def test_while_the_service_hangs_the_join_fails_and_can_be_tried_again(
    meet: Meet, room: str, design: str
) -> None:
    prosody = await meet(options={"muc_webhook_timeout": 0.5})
    slow = hold(allow())
    prosody.backend.on("validate-access", slow)
    ann = await meet.user(design=design)
    assert (await ann.join(room))[:2] == ["CONFERENCE_FAILED", "conference.connectionError"]
    prosody.backend.on("validate-access", allow())
    assert await ann.join_again() == JOINED


@ways_in
async def test_a_full_room_says_so(meet: Meet, room: str, design: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"maxParticipants": 1}))
    ann, bob = await meet.user(design=design), await meet.user(design=design)
    assert await ann.join(room) == JOINED
    assert (await bob.join(room))[:2] == ["CONFERENCE_FAILED", "conference.max_users"]


@ways_in
async def test_a_password_is_asked_for_and_then_opens(meet: Meet, room: str, design: str) -> None:
    prosody = await meet()
    prosody.backend.on("room-created", reply({"password": "s3cret"}))
    ann = await meet.user(design=design)
    assert (await ann.join(room))[:2] == ["CONFERENCE_FAILED", "conference.passwordRequired"]
    assert (await ann.join_again("wrong"))[:2] == ["CONFERENCE_FAILED", "conference.passwordRequired"]
    assert await ann.join_again("s3cret") == JOINED


@transports
async def test_in_a_room_with_a_lobby_the_page_is_told_that_only_members_get_in(
    meet: Meet, room: str, transport: str
) -> None:
    prosody = await meet(muc_modules=("muc_webhook", "rig_lobby"))
    prosody.backend.on("room-created", reply({"lobbyEnabled": True, "chatEnabled": False}))
    ann = await meet.user(transport=transport)
    assert (await ann.join(room))[:2] == ["CONFERENCE_FAILED", "conference.connectionError.membersOnly"]
    node = ann.jid.partition("@")[0]
    await prosody.module(
        f'assert(muc.get_room_from_jid("{room}@{prosody.muc}"):set_affiliation(true, "{node}@localhost", "member"))'
    )
    assert await ann.join_again() == JOINED
    assert (await ann.expect_message("ROOM_CONFIG"))["config"]["chatEnabled"] is False
