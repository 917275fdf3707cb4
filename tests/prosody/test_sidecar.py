"""What is different when there is a link to a sidecar: decision and config come in one answer."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from tests.prosody.conftest import StartProsody, eventually
from tests.rig.answers import Answer, Request, allow, deny, hold, raw, reply, reset
from tests.rig.backend import Backend
from tests.rig.xmpp import Client, StanzaError

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_join_is_one_request(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    prosody.backend.on("room-created", reply({"chatEnabled": False, "meetingTitle": "Board"}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        for client, nick in ((ann, "ann"), (bob, "bob")):
            assert (await client.join(room, nick=nick)).config == {"chatEnabled": False, "meetingTitle": "Board"}
    assert [(r.endpoint, r.wants_config) for r in prosody.backend.requests] == [("join", True), ("join", False)]
    first = prosody.backend.requests[0]
    assert first.body["roomName"] == room
    assert first.body["userJid"] == ann.jid.partition("/")[0]


async def test_a_hundred_joins_into_new_rooms_are_a_hundred_requests_on_one_connection(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    async with Client.connect(prosody) as ann:
        for number in range(100):
            await ann.join(f"{room}-{number}")
    assert len(prosody.backend.requests) == 100
    assert len({r.connection for r in prosody.backend.requests}) == 1


async def test_a_meeting_service_is_asked_as_ever(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    async with Client.connect(prosody) as ann:
        for number in range(3):
            await ann.join(f"{room}-{number}")
    assert [r.endpoint for r in prosody.backend.requests] == ["validate-access", "room-created"] * 3


# -- the lead


async def test_twenty_at_once_into_a_new_room_ask_for_one_config(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    slow = hold(reply({"chatEnabled": False}))
    prosody.backend.on("room-created", slow)
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(Client.connect(prosody)) for _ in range(20)]
        for number, client in enumerate(crowd):
            await client.begin_join(room, f"n{number}")
        await prosody.backend.received("join", room, count=20)
        slow.release()
        results = await asyncio.gather(*(c.await_join(room) for c in crowd))
    assert [r.config for r in results] == [{"chatEnabled": False}] * 20
    assert len(prosody.backend.configs(room)) == 1


def only_for(jid: str, answer: Answer, others: Answer) -> Answer:
    async def choose(request: Request) -> web.StreamResponse:
        return await (answer if request.body["userJid"] == jid.partition("/")[0] else others)(request)

    return choose


FATES = ("denied", "reset", "timeout", "without", "garbage", "500")


@pytest.mark.parametrize("fate", FATES)
async def test_the_fate_of_the_lead_is_its_own(start_prosody: StartProsody, room: str, fate: str) -> None:
    prosody = await start_prosody(fresh=True, options={"muc_webhook_timeout": 1})
    await prosody.link_up()
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    answers = {
        "denied": hold(deny("No")),
        "reset": hold(reset()),
        "timeout": hold(allow()),
        "without": hold(allow()),
        "garbage": hold(raw("{")),
        "500": hold(reply({}, status=500)),
    }
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        fate_of_lead = answers[fate]
        prosody.backend.on("join", only_for(ann.jid, fate_of_lead, allow()), room=room)
        await ann.begin_join(room, "ann")
        await prosody.backend.received("join", room)
        await bob.begin_join(room, "bob")
        waiting = f'return #(webhook.module.save().records["{room}@conference.localhost"].waiters or {{}})'
        await eventually(lambda: prosody.module(waiting), 1)
        if fate != "timeout":
            fate_of_lead.release()
        assert (await bob.await_join(room)).config == {"chatEnabled": False}
        lead = await ann.await_join(room)
        if fate in ("without", "reset"):  # the latter was asked again, over HTTP
            assert lead.config == {"chatEnabled": False}
        else:
            assert str(lead.error) == ("cancel/not-allowed" if fate == "denied" else "wait/remote-server-timeout")
    assert len(prosody.backend.asked("room-created", room)) == 1


async def test_a_lead_that_goes_away_leaves_the_config_to_others(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    slow = hold(reply({"chatEnabled": False}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("join", room)
        await ann.rst()
        await eventually(lambda: prosody.has_session(ann.jid), False)
        await bob.begin_join(room, "bob")
        await prosody.backend.received("join", room, count=2)
        slow.release()
        assert (await bob.await_join(room)).config == {"chatEnabled": False}
        assert await prosody.occupants(room) == ["bob"]
    assert len(prosody.backend.configs(room)) == 1


async def test_a_lead_whose_session_fails_leaves_the_config_to_others(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    slow = hold(reply({"chatEnabled": False}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("join", room)
        await bob.begin_join(room, "bob")
        await prosody.backend.received("join", room, count=2)
        await prosody.lua(f"""
            local session = prosody.full_sessions["{ann.jid}"];
            local usual = getmetatable(session);
            setmetatable(session, {{ __index = function (_, key)
                if key ~= "destroyed" then return nil; end
                setmetatable(session, usual);
                error("oops", 0);
            end }})""")
        slow.release()
        assert (await bob.await_join(room)).config == {"chatEnabled": False}
        assert str((await ann.await_join(room)).error) == "wait/internal-server-error"
        assert "failed: oops" in prosody.log_of_test()
        prosody.log_is_read()
    assert len(prosody.backend.configs(room)) == 1


async def test_a_denied_lead_leaves_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    prosody.backend.on("validate-access", deny("No"))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).error == StanzaError("cancel", "not-allowed", "No")
    assert prosody.backend.asked("room-created") == []
    assert not await prosody.module(f'return webhook.module.save().records["{room}@conference.localhost"] ~= nil')


async def test_jicofos_room_gets_its_config_when_the_lead_is_denied(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    slow = hold(deny("No"))
    prosody.backend.on("validate-access", slow)
    prosody.backend.on("room-created", reply({"chatEnabled": False}))
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("join", room)
        assert (await focus.join(room, nick="focus")).joined
        slow.release()
        assert (await ann.await_join(room)).denied
        await prosody.backend.received("room-created", room)
        prosody.backend.on("validate-access", allow())
        assert (await ann.join(room, nick="ann")).config == {"chatEnabled": False}
    assert len(prosody.backend.asked("room-created", room)) == 1


async def test_jicofo_takes_the_config_of_the_lead(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    slow = hold(reply({"membersOnly": True}))
    prosody.backend.on("room-created", slow)
    async with Client.connect(prosody) as ann, Client.connect(prosody, user="focus") as focus:
        await ann.begin_join(room, "ann")
        await prosody.backend.received("join", room)
        assert (await focus.join(room, nick="focus")).joined
        slow.release()
        assert (await ann.await_join(room)).joined
        assert await prosody.module(f'return muc.get_room_from_jid("{room}@{prosody.muc}"):get_members_only()')
    assert len(prosody.backend.configs(room)) == 1


# -- what the sidecar says of the config


@pytest.mark.parametrize("status", [400, 404, 409, 410, 422])
async def test_a_room_that_is_refused(start_prosody: StartProsody, room: str, status: int) -> None:
    prosody = await start_prosody()
    await prosody.link_up()
    prosody.backend.on("room-created", reply({"reason": "No such meeting"}, status=status))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).error == StanzaError("cancel", "not-allowed", "No such meeting")
        assert room not in await prosody.rooms()
    assert len(prosody.backend.configs(room)) == 1


async def test_a_config_that_cannot_be_had(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody()
    await prosody.link_up()
    prosody.backend.on("room-created", reply({"title": "Service Unavailable"}, status=503))
    async with Client.connect(prosody) as ann:
        assert str((await ann.join(room)).error) == "wait/remote-server-timeout"
        assert len(prosody.backend.configs(room)) == 1
        prosody.backend.on("room-created", reply({"chatEnabled": True}))
        assert (await ann.join(room)).config == {"chatEnabled": True}


async def test_without_a_word_on_the_config_it_is_asked_for(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody()
    await prosody.link_up()
    prosody.backend.on("join", allow())
    prosody.backend.on("room-created", reply({"chatEnabled": True}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).config == {"chatEnabled": True}
    assert [r.endpoint for r in prosody.backend.requests] == ["join", "room-created"]


# -- without the link


async def test_the_fallback_is_asked_as_a_meeting_service(start_prosody: StartProsody, room: str) -> None:
    async with Backend() as backend:
        options = {"muc_webhook_fallback_url": backend.url, "muc_webhook_timeout": 2}
        prosody = await start_prosody(fresh=True, options=options)
        await prosody.link_up()
        backend.on("room-created", reply({"chatEnabled": True}))
        async with Client.connect(prosody) as ann:
            await prosody.backend.stop()
            for number in range(2):
                assert (await ann.join(f"{room}-{number}")).config == {"chatEnabled": True}
            assert [r.endpoint for r in backend.requests] == ["validate-access", "room-created"] * 2
            await prosody.backend.listen()
            await prosody.link_up()
            assert (await ann.join(f"{room}-back")).joined
            assert [r.endpoint for r in prosody.backend.requests] == ["join"]
            assert len(backend.requests) == 4


async def test_a_meeting_service_in_the_sidecars_place_gets_its_own_calls(
    start_prosody: StartProsody, room: str
) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    async with Client.connect(prosody) as ann:
        assert (await ann.join(f"{room}-0")).joined
        prosody.backend.is_sidecar = False
        prosody.backend.cut_links()
        for number in (1, 2):
            assert (await ann.join(f"{room}-{number}")).joined
    assert [r.endpoint for r in prosody.backend.requests] == ["join", *["validate-access", "room-created"] * 2]


# -- configs that are alike


async def test_rooms_that_differ_in_little_get_each_their_own(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    configs: list[dict[str, Any]] = [
        {"meetingTitle": "One", "chatEnabled": True, "moderators": ["a@example.com"], "password": ""},
        {"meetingTitle": "T\u00f6wo", "chatEnabled": True, "moderators": ["b@example.com"], "password": ""},
        {"meetingTitle": 'With "quotes" \\', "chatEnabled": True, "moderators": [], "password": ""},
        {"meetingTitle": None, "chatEnabled": True, "moderators": ["c@example.com"], "password": ""},
        {"meetingTitle": 3, "chatEnabled": True, "moderators": [], "password": ""},
        {"meetingTitle": "More", "pollsEnabled": True, "chatEnabled": True, "moderators": [], "password": ""},
        {"meetingTitle": "Nested", "chatEnabled": False, "audioQuality": {"meetingTitle": "deep"}},
        {"audioQuality": {"meetingTitle": "deep"}, "chatEnabled": False},
        {"audioQuality": {"meetingTitle": "deeper"}, "chatEnabled": False},
        {"meetingTitle": "meetingTitle", "chatEnabled": False},
    ]
    wrong = {"moderators", "password"}
    async with Client.connect(prosody) as ann:
        for number, config in enumerate(configs):
            prosody.backend.on("room-created", reply(config), room=f"{room}-{number}")
            seen = (await ann.join(f"{room}-{number}")).config
            drops = wrong | ({"meetingTitle"} if not isinstance(config.get("meetingTitle"), str) else set())
            assert seen == {name: value for name, value in config.items() if name not in drops}, config


async def test_what_follows_a_known_config_spoils_it(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody()
    await prosody.link_up()
    config = '{"chatEnabled": true, "meetingTitle": "Board"}'
    async with Client.connect(prosody) as ann:
        prosody.backend.on("room-created", raw(config))
        assert (await ann.join(f"{room}-1")).joined
        for number, rest in enumerate((" x", "}", config)):
            prosody.backend.on("room-created", raw(config + rest))
            assert (await ann.join(f"{room}-bad-{number}")).denied
