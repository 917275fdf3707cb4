"""A decision that says more than yes or no: what comes of it in the room, and at whoever is refused."""

from __future__ import annotations

import asyncio
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.ordering import begin, new_id
from tests.rig.answers import Answer, Request, hold, reply
from tests.rig.xmpp import CLIENT, JITMEET, STANZAS, Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODERATOR, PARTICIPANT = ("moderator", "owner"), ("participant", "none")
LOBBY = ("muc_webhook", "rig_lobby")
WAITS = "auth/registration-required"


def says(**by_user: dict[str, Any]) -> Answer:
    """Lets everybody in, and says this about users whose JID begins so."""

    async def answer(request: Request) -> Any:
        user = request.body["userJid"].partition("@")[0]
        return await reply({"allowed": True, **by_user.get(user, {})})(request)

    return answer


async def in_room(prosody: Server, room: str, code: str) -> Any:
    return await prosody.module(f'local room = muc.get_room_from_jid("{room}@{prosody.muc}"); {code}')


async def lobby_of(prosody: Server, room: str) -> Any:
    return await in_room(prosody, room, "return room._data.lobbyroom")


async def lets_in(moderator: Client, room: str, user: Client) -> None:
    """As Jitsi's page does it."""
    invite = f"<x xmlns='http://jabber.org/protocol/muc#user'><invite to='{user.jid.partition('/')[0]}'/></x>"
    await moderator.send(f"<message to='{moderator.room_jid(room)}'>{invite}</message>")
    await moderator.ping()


async def error_of(client: Client, room: str) -> ET.Element:
    """The error that ends a join."""
    await client.begin_join(room)
    stanza = await client.expect(lambda it: it.tag == f"{CLIENT}presence" and it.get("type") == "error")
    error = stanza.find(f"{CLIENT}error")
    assert error is not None
    return error


# -- isModerator


@pytest.mark.parametrize("value", [True, "true", 1])
async def test_who_is_a_moderator_is_one(prosody: Server, room: str, value: object) -> None:
    prosody.backend.on("validate-access", says(ann={"isModerator": value}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        result = await ann.join(room, nick="ann")
        assert (result.role, result.affiliation) == MODERATOR
        result = await bob.join(room, nick="bob")
        assert (result.role, result.affiliation) == PARTICIPANT


@pytest.mark.parametrize("value", [False, None, "yes", 2, {}, [True]])
async def test_nothing_else_makes_a_moderator_or_takes_it_away(prosody: Server, room: str, value: object) -> None:
    prosody.backend.on("room-created", reply({"moderators": ["mod@auth.localhost"]}))
    prosody.backend.on("validate-access", says(ann={"isModerator": value}, mod={"isModerator": value}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="mod") as mod,
    ):
        await first.join(room, nick="first")
        assert (await ann.join(room, nick="ann")).role == "participant"
        assert (await mod.join(room, nick="mod")).role == "moderator"


async def test_a_moderator_stays_one_beside_token_affiliation(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=("muc_webhook", "rig_token_affiliation"))
    prosody.backend.on("validate-access", reply({"allowed": True, "isModerator": True}))
    async with Client.connect(prosody) as first, Client.connect(prosody, domain=prosody.token_domain) as ann:
        await first.join(room, nick="first")
        await ann.set_token("t", id="u-17")
        result = await ann.join(room, nick="ann")
        assert (result.role, result.affiliation) == MODERATOR


async def test_a_module_takes_it_away_neither_later_and_a_moderator_can(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", says(ann={"isModerator": True}))
    async with Client.connect(prosody) as first, Client.connect(prosody, user="ann") as ann:
        await first.join(room, nick="first")
        await ann.join(room, nick="ann")
        set_by = f'return room:set_affiliation({{}}, "ann@{prosody.auth_domain}", "member") == true'
        assert await in_room(prosody, room, set_by.format("true")) is False
        assert await in_room(prosody, room, set_by.format(f'"{first.jid}"')) is True
        assert await in_room(prosody, room, f'return room:get_affiliation("{ann.jid}")') == "member"


async def test_a_moderator_who_is_kicked_by_an_order_is_none_any_more(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", says(ann={"isModerator": True}))
    async with Client.connect(prosody) as first, Client.connect(prosody, user="ann") as ann:
        await first.join(room, nick="first")
        await ann.join(room, nick="ann")
        await begin(prosody, "kick", room, id=new_id(), user="ann@auth.localhost", reason="Out")
        assert await in_room(prosody, room, f'return room:get_affiliation("{ann.jid}") or "none"') == "none"


async def test_a_moderator_passes_the_configs_lobby(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("room-created", reply({"lobbyEnabled": True}))
    prosody.backend.on("validate-access", says(ann={"isModerator": True}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        assert (await ann.join(room, nick="ann")).role == "moderator"
        assert str((await bob.join(room, nick="bob")).error) == WAITS


# -- requireLobby


@pytest.mark.parametrize("value", [True, "true", 1, "yes", {}, [False]])
async def test_who_has_to_wait_waits_and_the_others_pass(start_prosody: StartProsody, room: str, value: object) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", says(ann={"requireLobby": value}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        error = await error_of(ann, room)
        assert error.findtext(f"{JITMEET}lobbyroom") == f"{room}@lobby.localhost"
        assert (await bob.join(room, nick="bob")).role == "participant"
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        assert await lobby_of(prosody, room) == f"{room}@lobby.localhost"


@pytest.mark.parametrize("value", [False, "false", 0, None, ""])
async def test_nobody_waits_without_a_reason(start_prosody: StartProsody, room: str, value: object) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", reply({"allowed": True, "requireLobby": value}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        assert (await bob.join(room, nick="bob")).joined
        assert await lobby_of(prosody, room) is None


async def test_a_moderator_lets_in_who_waits_and_it_is_for_one_stay(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}, mod={"isModerator": True}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="mod") as mod,
        Client.connect(prosody, user="ann") as ann,
    ):
        await first.join(room, nick="first")
        await mod.join(room, nick="mod")
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        await lets_in(mod, room, ann)
        assert (await ann.join(room, nick="ann")).role == "participant"
        await ann.leave(room, "ann")
        await ann.ping()
        assert str((await ann.join(room, nick="ann")).error) == WAITS


async def test_nobody_but_a_moderator_lets_anybody_in(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="bob") as bob,
        Client.connect(prosody, user="ann") as ann,
    ):
        await first.join(room, nick="first")
        await bob.join(room, nick="bob")
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        await in_room(prosody, room, "room._data.allow_member_invites = true")
        await lets_in(bob, room, ann)
        assert str((await ann.join(room, nick="ann")).error) == WAITS


async def test_an_affiliation_of_before_leads_nobody_past(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("room-created", reply({"moderators": ["ann"], "password": "right"}))
    prosody.backend.on("validate-access", says(ann={"requireLobby": True, "isModerator": True}))
    async with Client.connect(prosody) as first, Client.connect(prosody, user="ann") as ann:
        await first.join(room, nick="first", password="right")
        await in_room(prosody, room, f'room:set_affiliation(true, "ann@{prosody.auth_domain}", "owner")')
        assert str((await ann.join(room, nick="ann", password="right")).error) == WAITS


async def test_who_is_banned_does_not_wait_either(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}))
    async with Client.connect(prosody) as first, Client.connect(prosody, user="ann") as ann:
        await first.join(room, nick="first")
        await in_room(prosody, room, f'room:set_affiliation(true, "ann@{prosody.auth_domain}", "outcast")')
        assert str((await ann.join(room, nick="ann")).error) == "auth/forbidden"


async def test_the_first_of_a_meeting_waits_too(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}, mod={"isModerator": True}))
    async with Client.connect(prosody, user="ann") as ann, Client.connect(prosody, user="mod") as mod:
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        assert (await mod.join(room, nick="mod")).role == "moderator"
        await lets_in(mod, room, ann)
        assert (await ann.join(room, nick="ann")).role == "participant"


async def test_a_lobby_of_a_moderator_holds_everybody(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        await in_room(prosody, room, 'prosody.events.fire_event("create-lobby-room", { room = room })')
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        assert str((await bob.join(room, nick="bob")).error) == WAITS


async def test_a_room_that_a_moderator_has_closed_stays_closed_for_the_others(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        await in_room(prosody, room, "room:set_members_only(true)")
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        assert str((await bob.join(room, nick="bob")).error) == WAITS


async def test_a_lobby_that_the_config_wants_later_holds_everybody(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    late = hold(reply({"lobbyEnabled": True}))
    prosody.backend.on("room-created", late)
    prosody.backend.on("validate-access", says(ann={"requireLobby": True, "configuration": {}}))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await focus.join(room, nick="focus")
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        late.release()
        code = "return webhook.module.save().records[room.jid].settings.lobbyEnabled == true"
        await eventually(lambda: in_room(prosody, room, code), True)
        assert str((await bob.join(room, nick="bob")).error) == WAITS


async def test_in_a_members_only_room_the_others_still_pass(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(muc_modules=LOBBY)
    prosody.backend.on("room-created", reply({"membersOnly": True}))
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}))
    async with (
        Client.connect(prosody) as first,
        Client.connect(prosody, user="ann") as ann,
        Client.connect(prosody, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        assert str((await ann.join(room, nick="ann")).error) == WAITS
        assert (await bob.join(room, nick="bob")).joined


async def test_without_a_lobby_on_this_server_who_has_to_wait_stays_out(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", says(ann={"requireLobby": True}))
    async with Client.connect(prosody) as first, Client.connect(prosody, user="ann") as ann:
        await first.join(room, nick="first")
        result = await ann.join(room, nick="ann")
        assert str(result.error) == "cancel/not-allowed"
        assert ann.json_messages(room) == [
            {
                "type": "JOIN_REFUSED",
                "reason": "You have to wait in the lobby of this meeting, but this server has no lobby",
            }
        ]


# -- configuration


async def test_a_config_that_comes_along_is_the_rooms(prosody: Server, room: str) -> None:
    config = {
        "meetingTitle": "Board",
        "chatEnabled": False,
        "moderators": [],
        "password": "right",
        "audioQuality": None,
    }
    prosody.backend.on("validate-access", reply({"allowed": True, "configuration": config}))
    async with Client.connect(prosody) as ann:
        assert str((await ann.join(room)).error) == "auth/not-authorized"
        result = await ann.join(room, password="right")
        assert result.config == {"meetingTitle": "Board", "chatEnabled": False}
    assert prosody.backend.asked("room-created", room) == []


async def test_a_room_that_has_a_config_keeps_it(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"meetingTitle": "First"}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        prosody.backend.on("validate-access", reply({"allowed": True, "configuration": {"meetingTitle": "Second"}}))
        assert (await bob.join(room, nick="bob")).config == {"meetingTitle": "First"}


async def test_a_config_that_comes_along_counts_where_room_created_fails(
    start_prosody: StartProsody, room: str
) -> None:
    """Jicofo makes the room, and the service knows no `room-created`."""
    prosody = await start_prosody(options={"restrict_room_creation": True})
    prosody.backend.on("room-created", reply({"error": "no such path"}, status=404))
    prosody.backend.on("validate-access", reply({"allowed": True, "configuration": {"meetingTitle": "Board"}}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await focus.join(room, nick="focus")
        assert (await ann.join(room, nick="ann")).config == {"meetingTitle": "Board"}
        await asyncio.sleep(0.1)
        assert await in_room(prosody, room, "return room._data.muc_webhook_config ~= nil") is True


async def test_room_created_changes_nothing_when_it_fails_after_a_config_has_come_along(
    prosody: Server, room: str
) -> None:
    late = hold(reply({"error": "no such path"}, status=404))
    prosody.backend.on("room-created", late)
    prosody.backend.on("validate-access", reply({"allowed": True, "configuration": {"meetingTitle": "Board"}}))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
    ):
        await focus.join(room, nick="focus")
        assert (await ann.join(room, nick="ann")).config == {"meetingTitle": "Board"}
        late.release()
        await asyncio.sleep(0.2)
        prosody.backend.on("validate-access", reply({"allowed": True}))
        assert (await bob.join(room, nick="bob")).config == {"meetingTitle": "Board"}
        assert len(prosody.backend.asked("room-created", room)) == 1


@pytest.mark.parametrize("value", ["none", 17, [1], {"password": ["secret"]}, {"membersOnly": "perhaps"}, None, ""])
async def test_a_config_that_cannot_be_read_is_asked_for(prosody: Server, room: str, value: object) -> None:
    prosody.backend.on("validate-access", reply({"allowed": True, "configuration": value}))
    prosody.backend.on("room-created", reply({"meetingTitle": "Board"}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).config == {"meetingTitle": "Board"}


# -- remainingMinutes


async def minutes_left(prosody: Server, room: str) -> float | None:
    """Minutes until the decision ends the meeting."""
    code = "local at = room._data.muc_webhook_ends_at; return at and (at - os.time()) / 60"
    left: float | None = await in_room(prosody, room, code)
    return left


async def is_destroyed(client: Client) -> str | None:
    """The reason with which the room of this client ends."""
    muc_user = "{http://jabber.org/protocol/muc#user}"
    stanza = await client.expect(lambda it: it.find(f"{muc_user}x/{muc_user}destroy") is not None)
    return stanza.findtext(f"{muc_user}x/{muc_user}destroy/{muc_user}reason")


@pytest.mark.parametrize("config", [{}, {"maxDurationMinutes": 60}])
@pytest.mark.parametrize("minutes", [0.02, "0.02", 0, -5])
async def test_a_meeting_ends_when_the_service_says(
    prosody: Server, room: str, config: dict[str, Any], minutes: object
) -> None:
    prosody.backend.on("room-created", reply(config))
    prosody.backend.on("validate-access", reply({"allowed": True, "remainingMinutes": minutes}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).joined
        assert await is_destroyed(ann) == "The time of this meeting is over"


async def test_minutes_only_shorten_what_the_config_allows(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"maxDurationMinutes": 0.02}))
    prosody.backend.on("validate-access", reply({"allowed": True, "remainingMinutes": 60}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).joined
        assert await is_destroyed(ann) == "The meeting has reached its limit of 0.02 minutes"


async def test_the_last_word_of_the_service_counts_and_an_old_one_is_no_news(prosody: Server, room: str) -> None:
    said = [(10, "backend", 10), (30, "backend", 30), (0, "memory", 30), (20, "backend", 20)]
    async with Client.connect(prosody) as first:
        prosody.backend.on("validate-access", reply({"allowed": True, "remainingMinutes": 40, "decidedBy": "memory"}))
        await first.join(room, nick="first")
        assert await minutes_left(prosody, room) == pytest.approx(40, abs=0.1)
        for number, (minutes, by, left) in enumerate(said):
            answer = reply({"allowed": True, "remainingMinutes": minutes, "decidedBy": by})
            prosody.backend.on("validate-access", answer)
            async with Client.connect(prosody) as other:
                assert (await other.join(room, nick=f"other-{number}")).joined
            assert await minutes_left(prosody, room) == pytest.approx(left, abs=0.1)


@pytest.mark.parametrize("minutes", ["soon", True, {}, None, ""])
async def test_minutes_that_cannot_be_read_end_nothing(prosody: Server, room: str, minutes: object) -> None:
    prosody.backend.on("validate-access", reply({"allowed": True, "remainingMinutes": minutes}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).joined
        assert await minutes_left(prosody, room) is None


# -- a refusal


async def test_the_error_says_what_the_service_says(prosody: Server, room: str) -> None:
    said = {"status": "CANCELLED", "requireAuth": True, "redirectUrl": "https://example.com/?a=1&b=2"}
    prosody.backend.on("validate-access", reply({"allowed": False, "reason": "No", **said}))
    async with Client.connect(prosody) as ann:
        error = await error_of(ann, room)
        assert error.get("type") == "cancel"
        assert error.find(f"{STANZAS}not-allowed") is not None
        assert error.findtext(f"{JITMEET}status") == "CANCELLED"
        assert error.findtext(f"{JITMEET}redirect-url") == "https://example.com/?a=1&b=2"
        assert error.find(f"{JITMEET}require-auth") is not None


async def test_an_error_without_more_has_no_more(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", reply({"allowed": False, "requireAuth": False, "status": 7}))
    async with Client.connect(prosody) as ann:
        assert [child.tag for child in await error_of(ann, room) if child.tag.startswith(JITMEET)] == []


# -- who decided

EVENTS = {"muc_webhook_events": ["user-joined"]}


async def joined_event(prosody: Server, room: str) -> dict[str, Any]:
    await eventually(lambda: _count(prosody, room), 1)
    body: dict[str, Any] = prosody.backend.asked("user-joined", room)[0].body
    return body


async def _count(prosody: Server, room: str) -> int:
    return len(prosody.backend.asked("user-joined", room))


@pytest.mark.parametrize(
    ("says_so", "decided_by"),
    [
        ({}, "backend"),
        ({"decidedBy": "memory"}, "memory"),
        ({"decidedBy": "policy"}, "policy"),
        ({"decidedBy": 1}, "backend"),
    ],
)
async def test_a_join_tells_who_decided(
    start_prosody: StartProsody, room: str, says_so: dict[str, Any], decided_by: str
) -> None:
    prosody = await start_prosody(options=EVENTS)
    prosody.backend.on("validate-access", reply({"allowed": True, "decisionId": "d-1", **says_so}))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        event = await joined_event(prosody, room)
    assert (event["decidedBy"], event["decisionId"]) == (decided_by, "d-1")


async def test_who_is_let_in_without_an_answer_was_let_in_by_policy(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={**EVENTS, "muc_webhook_fail_open": True})
    prosody.backend.on("validate-access", reply({}, status=500))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        event = await joined_event(prosody, room)
    assert (event["decidedBy"], event.get("decisionId")) == ("policy", None)


async def test_who_needed_no_decision_then_was_exempt(start_prosody: StartProsody, room: str) -> None:
    """Nobody is told of those who are exempt, until the operator takes that back."""
    prosody = await start_prosody(options={**EVENTS, "muc_webhook_exempt": ["ann@auth.localhost"]}, fresh=True)
    async with Client.connect(prosody, user="ann") as ann:
        await ann.join(room)
        assert prosody.backend.asked("user-joined", room) == []
        file = prosody.folder / "prosody.cfg.lua"
        file.write_text(file.read_text().replace("ann@auth.localhost", "nobody@auth.localhost"))
        await prosody.lua(
            'prosody.reload_config(); require "core.modulemanager".reload("conference.localhost", "muc_webhook")'
        )
        event = await joined_event(prosody, room)
    assert (event["userJid"], event["decidedBy"]) == ("ann@auth.localhost", "exempt")
