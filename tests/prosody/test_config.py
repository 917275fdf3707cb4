"""A room is what the meeting service says it is."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.prosody.conftest import Stage, Stages
from tests.rig.webhook import Answer, allow, deny, hold, raw, reply, reset
from tests.rig.xmpp import CLIENT, Client, JoinResult, StanzaError, json_message, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def settings_of(stage: Stage, room: str) -> dict[str, Any]:
    """The settings of a room as Prosody has them."""
    values: dict[str, Any] = await stage.server.module(f"""
        local room = assert(muc.get_room_from_jid("{room}@conference.localhost"));
        return {{
            members_only = room:get_members_only() or false; moderated = room:get_moderated() or false;
            persistent = room:get_persistent() or false; hidden = room:get_hidden() or false;
            whois = room:get_whois(); password = room:get_password() or "";
            invites = room:get_allow_member_invites() or false; subject = select(2, room:get_subject()) or "";
            changesubject = room:get_changesubject() or false; history = room:get_historylength();
        }}""")
    return values


async def data_of(stage: Stage, room: str) -> dict[str, Any]:
    """What other plugins find in `room._data`."""
    data: dict[str, Any] = await stage.server.module(f"""
        local t = {{}};
        for k, v in pairs(muc.get_room_from_jid("{room}@conference.localhost")._data) do
            if type(v) ~= "table" then t[k] = v; end
        end
        return t""")
    return data


async def test_each_setting_is_applied(stage: Stage, room: str) -> None:
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
    stage.hook.on("room-created", reply(config))
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room, password="open sesame")).joined
        assert await settings_of(stage, room) == {
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
async def test_public_is_the_opposite_of_hidden(stage: Stage, room: str, public: bool) -> None:
    stage.hook.on("room-created", reply({"publicRoom": public}))
    async with Client.connect(stage.server) as ann:
        await ann.join(room)
        assert (await settings_of(stage, room))["hidden"] is not public


async def test_other_plugins_find_the_settings_under_their_names(stage: Stage, room: str) -> None:
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
    stage.hook.on("room-created", reply(config))
    async with Client.connect(stage.server) as ann:
        await ann.join(room)
        data = await data_of(stage, room)
    expected = {
        "chat_enabled": False,
        "recording_enabled": True,
        "hd1080p_enabled": False,
        "e2ee_enabled": True,
        "max_participants": 5,
        "max_occupants": 5,
        "meeting_title": "Board",
        "meeting_id": "m-1",
        "is_public": False,
    }
    assert {k: data.get(k) for k in expected} == expected


async def test_wrong_types_are_dropped_with_one_warning(stage: Stage, room: str) -> None:
    dropped = {
        "chatEnabled": "no",
        "maxParticipants": "5",
        "whois": "nobody",
        "historyLength": "many",
        "password": 17,
        "moderators": "ann",
        "moderated": 1,
        "maxDurationMinutes": -3,
    }
    nulls = {"membersOnly": None, "recordingEnabled": None}
    stage.hook.on("room-created", reply({**dropped, **nulls, "raiseHandEnabled": False}))
    async with Client.connect(stage.server) as ann:
        result = await ann.join(room)
        assert result.joined
        assert result.config == {"raiseHandEnabled": False}
        settings = await settings_of(stage, room)
        assert (settings["whois"], settings["password"], settings["moderated"]) == ("moderators", "", False)
    warnings = [line for line in stage.log().splitlines() if "wrong type" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(": " + ", ".join(sorted(dropped)))


# -- to the frontend


async def test_the_frontend_gets_what_is_on_the_white_list(stage: Stage, room: str) -> None:
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
    stage.hook.on("room-created", reply(config))
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room, password="secret")).config == {
            "chatEnabled": False,
            "autoRecord": False,
            "toolbarButtons": ["chat", "raisehand"],
            "audioQuality": {"stereo": True, "rates": [1, 2]},
            "meetingTitle": "Board",
        }


async def test_the_operator_may_name_more_but_no_secrets(stages: Stages, room: str) -> None:
    stage = await stages(options={"muc_webhook_frontend_settings": ["theme", "password", "moderators"]})
    stage.hook.on("room-created", reply({"theme": {"dark": True}, "password": "x", "moderators": [], "other": 1}))
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room, password="x")).config == {"theme": {"dark": True}}


async def test_the_config_comes_after_history_and_subject(stage: Stage, room: str) -> None:
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        stage.hook.on("room-created", reply({"chatEnabled": True}))
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


async def test_every_session_gets_the_config(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"chatEnabled": False}))
    async with (
        Client.connect(stage.server, user="ann") as phone,
        Client.connect(stage.server, user="ann") as laptop,
    ):
        assert (await phone.join(room, nick="ann")).config == {"chatEnabled": False}
        assert (await laptop.join(room, nick="ann")).config == {"chatEnabled": False}


async def test_recording_starts_once_with_the_first_real_participant(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"autoRecord": True, "recordingEnabled": True}))
    async with (
        Client.connect(stage.server, user="focus") as focus,
        Client.connect(stage.server) as ann,
        Client.connect(stage.server) as bob,
    ):
        assert not (await focus.join(room, nick="focus")).told_to_record
        assert (await ann.join(room, nick="ann")).told_to_record
        assert not (await bob.join(room, nick="bob")).told_to_record
        await stage.server.reload()
        await ann.leave(room, "ann")
        assert not (await ann.join(room, nick="ann")).told_to_record
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
async def test_recording_needs_both_settings(stage: Stage, room: str, config: dict[str, Any]) -> None:
    stage.hook.on("room-created", reply(config))
    async with Client.connect(stage.server) as ann:
        assert not (await ann.join(room)).told_to_record


# -- who is who


async def test_moderators_are_known_by_jid(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"moderators": ["Ann@auth.localhost", "", "@", "not a jid@@", "example.com"]}))
    async with (
        Client.connect(stage.server) as first,
        Client.connect(stage.server, user="ann") as ann,
        Client.connect(stage.server, user="bob") as bob,
    ):
        await first.join(room, nick="first")
        result = await ann.join(room, nick="ann")
        assert (result.role, result.affiliation) == ("moderator", "owner")
        assert (await bob.join(room, nick="bob")).role == "participant"


@pytest.mark.parametrize("listed", ["Ann@Example.com", "u-17"])
async def test_moderators_are_known_by_their_token(stage: Stage, room: str, listed: str) -> None:
    stage.hook.on("room-created", reply({"moderators": [listed]}))
    async with (
        Client.connect(stage.server) as first,
        Client.connect(stage.server) as ann,
        Client.connect(stage.server) as eve,
    ):
        await first.join(room, nick="first")
        await ann.set_token("t", id="u-17", email="ann@example.com")
        result = await ann.join(room, nick="ann")
        assert (result.role, result.affiliation) == ("moderator", "owner")
        await eve.set_token("t", id="u-18", email="eve@example.com")
        assert (await eve.join(room, nick="eve", name="ann@example.com")).role == "participant"


async def test_allowed_users_get_into_a_members_only_room(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"membersOnly": True}))
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.join(room, nick="ann")
        result = await bob.join(room, nick="bob")
        assert result.joined
        assert (result.role, result.affiliation) == ("participant", "member")


async def test_a_banned_user_stays_banned_from_a_members_only_room(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"membersOnly": True}))
    async with Client.connect(stage.server) as ann, Client.connect(stage.server, user="eve") as eve:
        await ann.join(room, nick="ann")
        await stage.server.module(
            f'local room = muc.get_room_from_jid("{room}@conference.localhost"); '
            'assert(room:set_affiliation(true, "eve@auth.localhost", "outcast"))'
        )
        assert (await eve.join(room, nick="eve")).denied


# -- how many


async def test_ten_at_once_into_three_places_are_exactly_three(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"maxParticipants": 3}, after=0.05))
    async with AsyncExitStack() as stack:
        focus = await stack.enter_async_context(Client.connect(stage.server, user="focus"))
        await focus.join(room, nick="focus")
        crowd = [await stack.enter_async_context(Client.connect(stage.server)) for _ in range(10)]
        results = await asyncio.gather(*(c.join(room, nick=f"n{i}") for i, c in enumerate(crowd)))
        assert sum(r.joined for r in results) == 3
        full = StanzaError("cancel", "service-unavailable", "The meeting is full")
        assert {r.error for r in results if r.denied} == {full}
        assert len(await stage.server.occupants(room)) == 4


async def test_a_place_that_is_given_up_is_free_again(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"maxParticipants": 2}))
    async with (
        Client.connect(stage.server) as ann,
        Client.connect(stage.server, user="bob") as bob,
        Client.connect(stage.server, user="bob") as bobs_phone,
        Client.connect(stage.server) as eve,
    ):
        await ann.join(room, nick="ann")
        await bob.join(room, nick="bob")
        assert (await eve.join(room, nick="eve")).denied
        assert (await bobs_phone.join(room, nick="bob")).joined, "a second session is no second participant"
        await ann.leave(room, "ann")
        assert (await eve.join(room, nick="eve")).joined


# -- passwords


@pytest.mark.parametrize("given", [None, "", "wrong"])
async def test_a_wrong_password_makes_no_room(stage: Stage, room: str, given: str | None) -> None:
    stage.hook.on("room-created", reply({"password": "right"}))
    async with Client.connect(stage.server) as ann:
        assert str((await ann.join(room, password=given)).error) == "auth/not-authorized"
        assert room not in await stage.server.rooms()
        assert (await ann.join(room, password="right")).joined
        assert len(stage.hook.asked("room-created", room)) == 1


async def test_a_wrong_password_is_refused_by_those_inside_too(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"password": "right"}))
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.join(room, nick="ann", password="right")
        assert str((await bob.join(room, nick="bob", password="wrong")).error) == "auth/not-authorized"


# -- made by somebody who was not asked for


async def test_a_room_that_jicofo_made_gets_its_config_before_users_are_in(stage: Stage, room: str) -> None:
    slow = hold(reply({"chatEnabled": False, "membersOnly": True, "meetingTitle": "Board"}))
    stage.hook.on("room-created", slow)
    async with Client.connect(stage.server, user="focus") as focus, Client.connect(stage.server) as ann:
        assert (await focus.join(room, nick="focus")).joined, "jicofo does not wait"
        await ann.begin_join(room, "ann")
        await stage.hook.received("validate-access", room)
        await focus.ping()
        assert await stage.server.occupants(room) == ["focus"]
        slow.release()
        assert (await ann.await_join(room)).config == {"chatEnabled": False, "meetingTitle": "Board"}
        await focus.ping()
        assert focus.json_messages(room) == [
            {"type": "ROOM_CONFIG", "config": {"chatEnabled": False, "meetingTitle": "Board"}}
        ]
        assert (await settings_of(stage, room))["members_only"] is True
        assert await stage.server.occupants(room) == ["ann", "focus"], "members-only threw nobody out"
        assert len(stage.hook.asked("room-created", room)) == 1


async def test_a_room_that_was_there_before_the_module_gets_its_config(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True, muc_modules=())
    stage.hook.on("room-created", reply({"chatEnabled": False}))
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        assert (await ann.join(room, nick="ann")).config is None
        await stage.server.load()
        assert (await bob.join(room, nick="bob")).config == {"chatEnabled": False}
        await ann.ping()
        assert ann.json_messages(room) == [{"type": "ROOM_CONFIG", "config": {"chatEnabled": False}}]


async def test_a_room_that_code_made_gets_its_config_at_the_first_join(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({"chatEnabled": False}))
    await stage.server.module(f'assert(muc.create_room("{room}@conference.localhost")):set_persistent(false)')
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room)).config == {"chatEnabled": False}


async def test_a_new_life_of_a_room_asks_anew(stage: Stage, room: str) -> None:
    async with Client.connect(stage.server) as ann:
        for title in ("First", "Second"):
            stage.hook.on("room-created", reply({"meetingTitle": title}))
            assert (await ann.join(room)).config == {"meetingTitle": title}
            await ann.leave(room)
            assert room not in await stage.server.rooms()
        assert len(stage.hook.asked("room-created", room)) == 2


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
async def test_without_a_config_nobody_gets_in(stages: Stages, room: str, answer: Answer) -> None:
    stage = await stages(options={"muc_webhook_timeout": 1.5})
    stage.hook.on("room-created", answer)
    async with Client.connect(stage.server) as ann:
        assert str((await ann.join(room)).error) == "wait/remote-server-timeout"
        assert room not in await stage.server.rooms()
        stage.hook.on("room-created", reply({"chatEnabled": True}))
        assert (await ann.join(room)).config == {"chatEnabled": True}


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
async def test_a_room_that_the_backend_refuses(stage: Stage, room: str, status: int) -> None:
    stage.hook.on("room-created", reply({"reason": "No such meeting"}, status=status))
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room)).error == StanzaError("cancel", "not-allowed", "No such meeting")
        assert room not in await stage.server.rooms()


async def test_a_refused_room_is_refused_with_fail_open_too(stages: Stages, room: str) -> None:
    stage = await stages(options={"muc_webhook_fail_open": True})
    stage.hook.on("room-created", reply({"message": "Gone"}, status=410))
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room)).error == StanzaError("cancel", "not-allowed", "Gone")


async def test_a_backend_that_only_fails_for_jicofos_room_is_asked_again_for_the_user(stage: Stage, room: str) -> None:
    stage.hook.on("room-created", reply({}, status=500))
    async with Client.connect(stage.server, user="focus") as focus, Client.connect(stage.server) as ann:
        await focus.join(room, nick="focus")
        await stage.hook.received("room-created", room)
        await focus.ping()
        stage.hook.on("room-created", reply({"chatEnabled": False}))
        assert (await ann.join(room, nick="ann")).config == {"chatEnabled": False}


# -- rooms that outlive their users


async def test_a_persistent_room_keeps_its_settings_when_the_backend_is_away(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True)
    stage.hook.on("room-created", reply({"persistent": True, "chatEnabled": False, "maxParticipants": 1}))
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
        assert room in await stage.server.rooms()
        await stage.server.reload("muc")  # what a restart does to the rooms in memory
        await stage.server.unload()
        await stage.server.load()
        stage.hook.on("room-created", reply({}, status=500))
        result: JoinResult = await ann.join(room, nick="ann")
        assert result.config == {"chatEnabled": False}
        assert str((await bob.join(room, nick="bob")).error) == "cancel/service-unavailable"


async def test_a_persistent_room_keeps_its_settings_over_a_restart(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True, storage="internal", options={"muc_webhook_events": ["user-joined", "user-left"]})
    config = {
        "persistent": True,
        "maxParticipants": 1,
        "moderators": ["mod@auth.localhost"],
        "chatEnabled": False,
        "toolbarButtons": [],
        "audioQuality": {},
    }
    stage.hook.on("room-created", reply(config))
    stage.hook.on("user-left", reply({}, status=503))
    async with Client.connect(stage.server) as ann:
        await ann.join(room, nick="ann")
        await ann.leave(room, "ann")
        (waiting,) = await stage.hook.received("user-left", room)
    tried = 0

    def take_events_but_know_no_room() -> None:
        nonlocal tried
        tried = len(stage.hook.asked("user-left", room))
        stage.hook.on("room-created", reply({}, status=500))
        stage.hook.on("user-left", reply({}, status=202))

    await stage.server.restart(take_events_but_know_no_room)
    delivered = await stage.hook.received("user-left", room, count=tried + 1)
    assert delivered[-1].body == waiting.body, "the event that nobody took is told now"
    async with Client.connect(stage.server) as ann, Client.connect(stage.server, user="mod") as mod:
        assert (await data_of(stage, room))["chat_enabled"] is False
        result = await mod.join(room, nick="mod")
        assert result.config == {"chatEnabled": False, "toolbarButtons": [], "audioQuality": {}}
        assert result.role == "moderator"
        assert str((await ann.join(room, nick="ann")).error) == "cancel/service-unavailable"


async def test_a_config_that_comes_late_reaches_those_who_were_let_in_without(stages: Stages, room: str) -> None:
    stage = await stages(options={"muc_webhook_fail_open": True})
    stage.hook.on("room-created", reply({}, status=500))
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        assert (await ann.join(room, nick="ann")).config is None
        stage.hook.on("room-created", reply({"chatEnabled": False, "membersOnly": True}))
        await stage.server.module(f"""
            local record = webhook.module.save().records["{room}@conference.localhost"];
            record.asked_at = record.asked_at - 11""")
        result = await bob.join(room, nick="bob")
        assert result.joined
        await stage.hook.received("room-created", room, count=2)
        for client in (ann, bob) if result.config is None else (ann,):  # it may have come with the join
            await client.expect(lambda s: (json_message(s) or {}).get("type") == "ROOM_CONFIG")
        assert await stage.server.occupants(room) == ["ann", "bob"]


async def test_a_room_that_is_gone_for_good_is_asked_for_only_when_it_may_be_made_again(
    stage: Stage, room: str
) -> None:
    stage.hook.on("room-created", reply({"persistent": True}))
    async with Client.connect(stage.server) as ann:
        await ann.join(room)
        await stage.server.destroy(room)
        asked = len(stage.hook.requests)
        assert str((await ann.join(room)).error) == "cancel/gone"
        assert len(stage.hook.requests) == asked
        stage.hook.on("validate-access", deny("No"))
        await stage.server.module(f'muc.get_room_from_jid("{room}@conference.localhost")._data.locked = 1')
        assert str((await ann.join(room)).error) == "cancel/not-allowed"
        stage.hook.on("validate-access", allow())
        assert "201" in (await ann.join(room)).statuses


async def test_the_title_becomes_the_subject_if_asked_for(stages: Stages, room: str) -> None:
    stage = await stages(options={"muc_webhook_subject": True})
    stage.hook.on("room-created", reply({"meetingTitle": "Board"}))
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.join(room, nick="ann")
        assert (await settings_of(stage, room))["subject"] == "Board"
        await bob.join(room, nick="bob")
        assert bob.has(lambda s: s.findtext(f"{CLIENT}subject") == "Board")


async def test_a_locked_room_is_unlocked_by_its_config(stages: Stages, room: str) -> None:
    stage = await stages(options={"muc_room_locking": True})
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.join(room, nick="ann")
        assert (await bob.join(room, nick="bob")).joined


async def test_records_of_rooms_that_never_came_to_be_are_forgotten(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True)
    stage.hook.on("room-created", reply({"password": "right"}))
    async with Client.connect(stage.server) as ann:
        assert (await ann.join(room, password="wrong")).denied
        held = f'return webhook.module.save().records["{room}@conference.localhost"] ~= nil'
        assert await stage.server.module(held), "the next try needs no second question"
        await stage.server.module("""
            local state = webhook.module.save();
            state.swept_at = state.swept_at - 61;
            for _, record in pairs(state.records) do record.asked_at = record.asked_at - 61; end""")
        await ann.join("other-" + room, password="right")
        assert not await stage.server.module(held)
