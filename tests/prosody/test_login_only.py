"""`isPublic: false`: who comes without an account or a verified token is turned away."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import allow, hold, reply
from tests.rig.xmpp import CLIENT, JITMEET, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

ACCOUNTS = {"muc_mapper_domain_base": "auth.localhost"}
"""The users of these rooms have accounts; those of `localhost` are guests."""

REFUSED = {
    "type": "JOIN_REFUSED",
    "requireAuth": True,
    "reason": "This meeting is only for users who have logged in",
}


async def sealed(start_prosody: StartProsody, **more: object) -> Server:
    prosody = await start_prosody(options=ACCOUNTS)
    prosody.backend.on("room-created", reply({"isPublic": False, **more}))
    return prosody


async def test_the_first_guest_is_asked_about_and_turned_away(start_prosody: StartProsody, room: str) -> None:
    prosody = await sealed(start_prosody)
    async with Client.connect(prosody) as eve:
        result = await eve.join(room)
        assert str(result.error) == "cancel/not-allowed"
        assert len(prosody.backend.asked("validate-access", room)) == 1
        assert room not in await prosody.rooms()


async def test_later_guests_are_turned_away_without_a_question(start_prosody: StartProsody, room: str) -> None:
    prosody = await sealed(start_prosody)
    async with Client.connect(prosody) as eve, Client.connect(prosody, user="ann") as ann:
        assert (await ann.join(room, nick="ann")).joined
        assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"
        assert len(prosody.backend.asked("validate-access", room)) == 1
        assert await prosody.occupants(room) == ["ann"]


async def test_the_page_hears_before_the_error_that_a_login_is_needed(start_prosody: StartProsody, room: str) -> None:
    prosody = await sealed(start_prosody)
    async with Client.connect(prosody) as eve:
        await eve.begin_join(room)
        error = await eve.expect(lambda s: s.tag == f"{CLIENT}presence" and s.get("type") == "error")
        assert error.find(f"{CLIENT}error/{JITMEET}require-auth") is not None, ET.tostring(error)
        assert eve.json_messages(room) == [REFUSED], "it was there already"


async def test_a_guest_who_waits_for_the_config_is_turned_away(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options=ACCOUNTS)
    slow = hold(reply({"isPublic": False}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as eve, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        await eve.begin_join(room, "eve")
        await prosody.backend.received("validate-access", room)
        slow.release()
        assert str((await eve.await_join(room)).error) == "cancel/not-allowed"


@pytest.mark.parametrize("public", [True, None])
async def test_guests_get_into_other_rooms(start_prosody: StartProsody, room: str, public: bool | None) -> None:
    prosody = await start_prosody(options=ACCOUNTS)
    prosody.backend.on("room-created", reply({"isPublic": public}))
    async with Client.connect(prosody) as eve:
        assert (await eve.join(room)).joined


async def test_a_room_that_was_never_made_is_asked_for_again(start_prosody: StartProsody, room: str) -> None:
    prosody = await sealed(start_prosody)
    async with Client.connect(prosody) as eve:
        assert (await eve.join(room)).denied
        prosody.backend.on("room-created", reply({"isPublic": True}))
        assert (await eve.join(room)).denied
        await prosody.module(f"""
            local record = webhook.module.save().records["{room}@conference.localhost"];
            record.asked_at = record.asked_at - 61""")
        assert (await eve.join(room)).joined


async def test_where_nobody_is_verified_everybody_is_asked_about(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    prosody.backend.on("room-created", reply({"isPublic": False}))
    prosody.backend.on("validate-access", allow())
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        assert (await bob.join(room, nick="bob")).affiliation == "member"
        assert len(prosody.backend.asked("validate-access", room)) == 2
        code = f'return muc.get_room_from_jid("{room}@conference.localhost"):get_members_only()'
        assert await prosody.module(code) is True
    assert prosody.log_of_test().count("isPublic = false cannot be enforced") == 1


async def test_an_authentication_that_the_operator_names_as_verifying_verifies(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_token_authentications": ["anonymous"]})
    prosody.backend.on("room-created", reply({"isPublic": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as eve:
        await ann.set_token("t", id="u-17")
        assert (await ann.join(room, nick="ann")).joined
        assert prosody.backend.asked("validate-access", room)[0].body["userId"] == "u-17"
        assert str((await eve.join(room, nick="eve")).error) == "cancel/not-allowed"
    assert "cannot be enforced" not in prosody.log_of_test()
