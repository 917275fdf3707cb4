"""A room is what the meeting service says it is."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.prosody.conftest import Server, StartProsody
from tests.rig.answers import Answer, allow, deny, hold, raw, reply, reset
from tests.rig.xmpp import CLIENT, Client, JoinResult, StanzaError, json_message, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def settings_of(prosody: Server, room: str) -> dict[str, Any]:
    """The settings of a room as Prosody has them."""
    values: dict[str, Any] = await prosody.module(f"""
        local room = assert(muc.get_room_from_jid("{room}@conference.localhost"));
        return {{
            members_only = room:get_members_only() or false; moderated = room:get_moderated() or false;
            persistent = room:get_persistent() or false; hidden = room:get_hidden() or false;
            whois = room:get_whois(); password = room:get_password() or "";
            invites = room:get_allow_member_invites() or false; subject = select(2, room:get_subject()) or "";
            changesubject = room:get_changesubject() or false; history = room:get_historylength();
        }}""")
    return values


async def data_of(prosody: Server, room: str) -> dict[str, Any]:
    """What other plugins find in `room._data`."""
    data: dict[str, Any] = await prosody.module(f"""
        local t = {{}};
        for k, v in pairs(muc.get_room_from_jid("{room}@conference.localhost")._data) do
            if type(v) ~= "table" then t[k] = v; end
        end
        return t""")
    return data


async def test_each_setting_is_applied(prosody: Server, room: str) -> None:
    config = {
        "password": "open sesame",
        "moderated": True,
        "hidden": True,
        "whois": "anyone",
        "allowInvites": True,
        "changeSubject": True,
        "historyLength": 7,
        "membersOnly": True,
        "maxParticipants": 9,
        "meetingTitle": "Board",
    }
    prosody.backend.on("room-created", reply(config))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, password="open sesame")).joined
        assert await settings_of(prosody, room) == {
            "members_only": True,
            "moderated": True,
            "persistent": False,
            "hidden": True,
            "whois": "anyone",
            "password": "open sesame",
            "invites": True,
            "subject": "",
            "changesubject": True,
            "history": 7,
        }


@pytest.mark.parametrize("public", [True, False])
async def test_public_is_the_opposite_of_hidden(prosody: Server, room: str, public: bool) -> None:
    prosody.backend.on("room-created", reply({"publicRoom": public}))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        assert (await settings_of(prosody, room))["hidden"] is not public


async def test_other_plugins_find_the_settings_under_their_names(prosody: Server, room: str) -> None:
    config = {
        "chatEnabled": False,
        "recordingEnabled": True,
        "hd1080pEnabled": False,
        "e2eeEnabled": True,
        "maxParticipants": 5,
        "meetingTitle": "Board",
        "meetingId": "m-1",
        "isPublic": False,
    }
    prosody.backend.on("room-created", reply(config))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        data = await data_of(prosody, room)
    expected = {
        "chat_enabled": False,
        "recording_enabled": True,
        "hd1080p_enabled": False,
        "e2ee_enabled": True,
        "max_participants": 5,
        "max_occupants": None,  # is Jitsi's, whose module counts jicofo and the recorder too
        "meeting_title": "Board",
        "meeting_id": "m-1",
        "is_public": False,
    }
    assert {k: data.get(k) for k in expected} == expected


async def test_wrong_types_are_dropped_with_one_warning(prosody: Server, room: str) -> None:
    dropped = {
        "chatEnabled": "no",
        "whois": "nobody",
        "historyLength": "many",
        "moderators": "ann",
        "publicRoom": 1,
        "meetingId": True,
    }
    nulls = {"membersOnly": None, "recordingEnabled": None}
    prosody.backend.on("room-created", reply({**dropped, **nulls, "raiseHandEnabled": False}))
    async with Client.connect(prosody) as ann:
        result = await ann.join(room)
        assert result.joined
        assert result.config == {"raiseHandEnabled": False}
        assert (await settings_of(prosody, room))["whois"] == "moderators"
    warnings = [line for line in prosody.log_of_test().splitlines() if "wrong type" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(": " + ", ".join(sorted(dropped)))


# -- to the frontend


async def test_the_frontend_gets_what_is_on_the_white_list(prosody: Server, room: str) -> None:
    config = {
        "chatEnabled": False,
        "autoRecord": False,
        "toolbarButtons": ["chat", "raisehand"],
        "audioQuality": {"stereo": True, "bitrate": None, "rates": [1, None, 2]},
        "meetingTitle": "Board",
        "password": "secret",
        "moderators": ["ann@auth.localhost"],
        "internalNote": "do not show",
        "maxParticipants": 3,
    }
    prosody.backend.on("room-created", reply(config))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, password="secret")).config == {
            "chatEnabled": False,
            "autoRecord": False,
            "toolbarButtons": ["chat", "raisehand"],
            "audioQuality": {"stereo": True, "rates": [1, 2]},
            "meetingTitle": "Board",
        }


async def test_the_operator_may_name_more_but_no_secrets(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_frontend_settings": ["theme", "password", "moderators"]})
    prosody.backend.on("room-created", reply({"theme": {"dark": True}, "password": "x", "moderators": [], "other": 1}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, password="x")).config == {"theme": {"dark": True}}


async def test_the_config_comes_after_history_and_subject(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        prosody.backend.on("room-created", reply({"chatEnabled": True}))
        await ann.join(room, nick="ann")
        await ann.send(f"<message type='groupchat' to='{ann.room_jid(room)}'><body>Hi</body></message>")
        await ann.send(f"<message type='groupchat' to='{ann.room_jid(room)}'><subject>Us</subject></message>")
        await ann.ping()
        await bob.begin_join(room, "bob")
        await bob.expect(lambda s: "110" in statuses(s))
        await bob.ping()
        messages = [s for s in bob.inbox if s.tag == f"{CLIENT}message"]
        kinds = [
            "config" if json_message(m) else "subject" if m.find(f"{CLIENT}subject") is not None else "history"
            for m in messages
        ]
        assert kinds == ["history", "subject", "config"]
        assert messages[-1].get("from") == bob.room_jid(room)
        assert messages[-1].get("type") == "groupchat"
        assert messages[-1].find("{urn:xmpp:delay}delay") is None


async def test_every_session_gets_the_config(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    async with (
        Client.connect(prosody, user="ann") as phone,
        Client.connect(prosody, user="ann") as laptop,
    ):
        assert (await phone.join(room, nick="ann")).config == {"chatEnabled": False}
        assert (await laptop.join(room, nick="ann")).config == {"chatEnabled": False}


async def test_recording_starts_once_with_the_first_real_participant(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"autoRecord": True, "recordingEnabled": True}))
    async with (
        Client.connect(prosody, user="focus") as focus,
        Client.connect(prosody) as ann,
        Client.connect(prosody) as bob,
    ):
        assert not (await focus.join(room, nick="focus")).asked_to_record
        assert (await ann.join(room, nick="ann")).asked_to_record
        assert not (await bob.join(room, nick="bob")).asked_to_record
        await prosody.reload()
        await ann.leave(room, "ann")
        assert not (await ann.join(room, nick="ann")).asked_to_record
        assert not any(m["type"] == "START_RECORDING" for m in focus.json_messages(room))


@pytest.mark.parametrize(
    "config",
    [
        {"autoRecord": True},
        {"autoRecord": True, "recordingEnabled": False},
        {"autoRecord": False, "recordingEnabled": True},
        {"autoRecord": "true", "recordingEnabled": True},
    ],
)
async def test_recording_needs_both_settings(prosody: Server, room: str, config: dict[str, Any]) -> None:
    prosody.backend.on("room-created", reply(config))
    async with Client.connect(prosody) as ann:
        assert not (await ann.join(room)).asked_to_record


# -- who is who


async def test_a_moderator_that_is_no_jid_spoils_nothing(prosody: Server, room: str) -> None:
    prosody.backend.on(
        "room-created", reply({"moderators": ["", "@", "not a jid@@", "example.com", "ann@auth.localhost"]})
    )
    async with Client.connect(prosody) as first, Client.connect(prosody, user="ann") as ann:
        await first.join(room, nick="first")
        assert (await ann.join(room, nick="ann")).role == "moderator"


async def test_allowed_users_get_into_a_members_only_room(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"membersOnly": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        result = await bob.join(room, nick="bob")
        assert result.joined
        assert (result.role, result.affiliation) == ("participant", "member")


async def test_a_banned_user_stays_banned_from_a_members_only_room(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"membersOnly": True}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="eve") as eve:
        await ann.join(room, nick="ann")
        await prosody.module(
            f'local room = muc.get_room_from_jid("{room}@conference.localhost"); '
            'assert(room:set_affiliation(true, "eve@auth.localhost", "outcast"))'
        )
        assert (await eve.join(room, nick="eve")).denied


# -- how many


async def test_ten_at_once_into_three_places_are_exactly_three(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"maxParticipants": 3}, after=0.05))
    async with AsyncExitStack() as stack:
        focus = await stack.enter_async_context(Client.connect(prosody, user="focus"))
        await focus.join(room, nick="focus")
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(10)]
        results = await asyncio.gather(*(c.join(room, nick=f"n{i}") for i, c in enumerate(crowd)))
        assert sum(r.joined for r in results) == 3
        full = StanzaError("cancel", "service-unavailable", "The meeting is full")
        assert {r.error for r in results if r.denied} == {full}
        assert len(await prosody.occupants(room)) == 4


async def test_a_place_that_is_given_up_is_free_again(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"maxParticipants": 2}))
    async with (
        Client.connect(prosody) as ann,
        Client.connect(prosody, user="bob") as bob,
        Client.connect(prosody, user="bob") as bobs_phone,
        Client.connect(prosody) as eve,
    ):
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        assert (await eve.join(room, nick="eve")).denied
        assert (await bobs_phone.join(room, nick="bob")).joined, "a second session is no second participant"
        await ann.leave(room, "ann")
        assert (await eve.join(room, nick="eve")).joined


# -- passwords


@pytest.mark.parametrize("given", [None, "", "wrong"])
async def test_a_wrong_password_makes_no_room(prosody: Server, room: str, given: str | None) -> None:
    prosody.backend.on("room-created", reply({"password": "right"}))
    async with Client.connect(prosody) as ann:
        assert str((await ann.join(room, password=given)).error) == "auth/not-authorized"
        assert room not in await prosody.rooms()
        assert (await ann.join(room, password="right")).joined
        assert len(prosody.backend.asked("room-created", room)) == 1


async def test_a_wrong_password_is_refused_by_those_inside_too(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"password": "right"}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann", password="right")
        assert str((await bob.join(room, nick="bob", password="wrong")).error) == "auth/not-authorized"


# -- made by somebody who was not asked for


async def test_a_room_that_jicofo_made_gets_its_config_before_users_are_in(prosody: Server, room: str) -> None:
    slow = hold(reply({"chatEnabled": False, "membersOnly": True, "meetingTitle": "Board"}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as ann:
        assert (await focus.join(room, nick="focus")).joined, "jicofo does not wait"
        await ann.begin_join(room, "ann")
        await prosody.backend.received("validate-access", room)
        await focus.ping()
        assert await prosody.occupants(room) == ["focus"]
        slow.release()
        assert (await ann.await_join(room)).config == {"chatEnabled": False, "meetingTitle": "Board"}
        await focus.ping()
        assert focus.json_messages(room) == [
            {"type": "ROOM_CONFIG", "config": {"chatEnabled": False, "meetingTitle": "Board"}}
        ]
        assert (await settings_of(prosody, room))["members_only"] is True
        assert await prosody.occupants(room) == ["ann", "focus"], "members-only threw nobody out"
        assert len(prosody.backend.asked("room-created", room)) == 1


async def test_a_room_that_was_there_before_the_module_gets_its_config(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, muc_modules=())
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        assert (await ann.join(room, nick="ann")).config is None
        await prosody.load()
        assert (await bob.join(room, nick="bob")).config == {"chatEnabled": False}
        await ann.ping()
        assert ann.json_messages(room) == [{"type": "ROOM_CONFIG", "config": {"chatEnabled": False}}]


async def test_a_room_that_code_made_gets_its_config_at_the_first_join(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    await prosody.module(f'assert(muc.create_room("{room}@conference.localhost")):set_persistent(false)')
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).config == {"chatEnabled": False}


async def test_a_new_life_of_a_room_asks_anew(prosody: Server, room: str) -> None:
    async with Client.connect(prosody) as ann:
        for title in ("First", "Second"):
            prosody.backend.on("room-created", reply({"meetingTitle": title}))
            assert (await ann.join(room)).config == {"meetingTitle": title}
            await ann.leave(room)
            assert room not in await prosody.rooms()
        assert len(prosody.backend.asked("room-created", room)) == 2


# -- when there is none

BROKEN = {
    "garbage": raw("nonsense"),
    "array": raw("[]"),
    "null": raw("null"),
    "server-error": reply({}, status=500),
    "unauthorized": reply({}, status=401),
    "html-404": raw("<html/>", status=404, content_type="text/html"),
    "reset": reset(),
    "hang": hold(reply({})),
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
async def test_without_a_config_nobody_gets_in(start_prosody: StartProsody, room: str, answer: Answer) -> None:
    prosody = await start_prosody(options={"muc_webhook_timeout": 1.5})
    prosody.backend.on("room-created", answer)
    async with Client.connect(prosody) as ann:
        assert str((await ann.join(room)).error) == "wait/remote-server-timeout"
        assert room not in await prosody.rooms()
        prosody.backend.on("room-created", reply({"chatEnabled": True}))
        assert (await ann.join(room)).config == {"chatEnabled": True}


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
async def test_a_room_that_the_backend_refuses(prosody: Server, room: str, status: int) -> None:
    prosody.backend.on("room-created", reply({"reason": "No such meeting"}, status=status))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).error == StanzaError("cancel", "not-allowed", "No such meeting")
        assert room not in await prosody.rooms()


async def test_a_refused_room_is_refused_with_fail_open_too(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_fail_open": True})
    prosody.backend.on("room-created", reply({"message": "Gone"}, status=410))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).error == StanzaError("cancel", "not-allowed", "Gone")


async def test_a_backend_that_only_fails_for_jicofos_room_is_asked_again_for_the_user(
    prosody: Server, room: str
) -> None:
    prosody.backend.on("room-created", reply({}, status=500))
    async with Client.connect(prosody, user="focus") as focus, Client.connect(prosody) as ann:
        await focus.join(room, nick="focus")
        await prosody.backend.received("room-created", room)
        await focus.ping()
        prosody.backend.on("room-created", reply({"chatEnabled": False}))
        assert (await ann.join(room, nick="ann")).config == {"chatEnabled": False}


# -- rooms that outlive their users


async def test_a_persistent_room_keeps_its_settings_when_the_backend_is_away(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True)
    prosody.backend.on("room-created", reply({"persistent": True, "chatEnabled": False, "maxParticipants": 1}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
        assert room in await prosody.rooms()
        await prosody.reload("muc")  # what a restart does to the rooms in memory
        await prosody.unload()
        await prosody.load()
        prosody.backend.on("room-created", reply({}, status=500))
        result: JoinResult = await ann.join(room, nick="ann")
        assert result.config == {"chatEnabled": False}
        assert str((await bob.join(room, nick="bob")).error) == "cancel/service-unavailable"


async def test_a_persistent_room_keeps_its_settings_over_a_restart(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(
        fresh=True, storage="internal", options={"muc_webhook_events": ["user-joined", "user-left"]}
    )
    config = {
        "persistent": True,
        "maxParticipants": 1,
        "moderators": ["mod@auth.localhost"],
        "chatEnabled": False,
        "toolbarButtons": [],
        "audioQuality": {},
    }
    prosody.backend.on("room-created", reply(config))
    prosody.backend.on("user-left", reply({}, status=503))
    async with Client.connect(prosody) as ann:
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
        (waiting,) = await prosody.backend.received("user-left", room)
    tried = 0

    def take_events_but_know_no_room() -> None:
        nonlocal tried
        tried = len(prosody.backend.asked("user-left", room))
        prosody.backend.on("room-created", reply({}, status=500))
        prosody.backend.on("user-left", reply({}, status=202))

    await prosody.restart(take_events_but_know_no_room)
    delivered = await prosody.backend.received("user-left", room, count=tried + 1)
    assert delivered[-1].body == waiting.body, "the event that nobody took is sent now"
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="mod") as mod:
        assert (await data_of(prosody, room))["chat_enabled"] is False
        result = await mod.join(room, nick="mod")
        assert result.config == {"chatEnabled": False, "toolbarButtons": [], "audioQuality": {}}
        assert result.role == "moderator"
        assert str((await ann.join(room, nick="ann")).error) == "cancel/service-unavailable"


async def test_a_config_that_comes_late_reaches_those_who_were_let_in_without(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(options={"muc_webhook_fail_open": True})
    prosody.backend.on("room-created", reply({}, status=500))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        assert (await ann.join(room, nick="ann")).config is None
        prosody.backend.on("room-created", reply({"chatEnabled": False, "membersOnly": True}))
        await prosody.module(f"""
            local record = webhook.module.save().records["{room}@conference.localhost"];
            record.asked_at = record.asked_at - 11""")
        result = await bob.join(room, nick="bob")
        assert result.joined
        await prosody.backend.received("room-created", room, count=2)
        for client in (ann, bob) if result.config is None else (ann,):  # it may have come with the join
            await client.expect(lambda s: (json_message(s) or {}).get("type") == "ROOM_CONFIG")
        assert await prosody.occupants(room) == ["ann", "bob"]


async def test_a_room_that_is_gone_for_good_is_asked_for_only_when_it_may_be_made_again(
    prosody: Server, room: str
) -> None:
    prosody.backend.on("room-created", reply({"persistent": True}))
    async with Client.connect(prosody) as ann:
        await ann.join(room)
        await prosody.destroy(room)
        asked = len(prosody.backend.requests)
        assert str((await ann.join(room)).error) == "cancel/gone"
        assert len(prosody.backend.requests) == asked
        prosody.backend.on("validate-access", deny("No"))
        await prosody.module(f'muc.get_room_from_jid("{room}@conference.localhost")._data.locked = 1')
        assert str((await ann.join(room)).error) == "cancel/not-allowed"
        prosody.backend.on("validate-access", allow())
        assert "201" in (await ann.join(room)).statuses


async def test_the_title_becomes_the_subject_if_asked_for(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_subject": True})
    prosody.backend.on("room-created", reply({"meetingTitle": "Board"}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        assert (await settings_of(prosody, room))["subject"] == "Board"
        await bob.join(room, nick="bob")
        assert bob.has(lambda s: s.findtext(f"{CLIENT}subject") == "Board")


async def test_a_locked_room_is_unlocked_by_its_config(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_room_locking": True})
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.join(room, nick="ann")
        assert (await bob.join(room, nick="bob")).joined


async def test_records_of_rooms_that_never_came_to_be_are_forgotten(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    prosody.backend.on("room-created", reply({"password": "right"}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, password="wrong")).denied
        held = f'return webhook.module.save().records["{room}@conference.localhost"] ~= nil'
        assert await prosody.module(held), "the next try needs no second question"
        await prosody.module("""
            local state = webhook.module.save();
            state.swept_at = state.swept_at - 61;
            for _, record in pairs(state.records) do record.asked_at = record.asked_at - 61; end""")
        await ann.join("other-" + room, password="right")
        assert not await prosody.module(held)
