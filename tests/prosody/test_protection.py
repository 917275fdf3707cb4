"""A room is never less protected than its config says, whatever types the meeting service writes."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.protection import PROTECTIVE
from tests.prosody.conftest import Server, StartProsody
from tests.prosody.test_config import data_of, settings_of
from tests.rig.answers import reply
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

NO_CONFIG = "wait/remote-server-timeout"
UNREADABLE: dict[str, list[Any]] = {
    "password": [True, ["4711"], {"value": "4711"}, -4711, 47.11, 2**60],
    "membersOnly": ["yes", "1", 2, [], {}],
    "isPublic": ["no", -1],
    "lobbyEnabled": ["on", [True]],
    "maxParticipants": [True, "many", -1, 2.5, "2.5", [5]],
    "moderated": ["TRUE"],
    "hidden": [{"hidden": True}],
    "maxDurationMinutes": [False, "an hour", "1e3", -3, [60]],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in UNREADABLE.items() for value in values], ids=repr
)
async def test_what_cannot_be_read_opens_no_room(prosody: Server, room: str, name: str, value: object) -> None:
    prosody.backend.on("room-created", reply({"chatEnabled": True, name: value}))
    async with Client.connect(prosody) as ann:
        assert str((await ann.join(room)).error) == NO_CONFIG
        assert room not in await prosody.rooms()
        errors = [line for line in prosody.log_of_test().splitlines() if "\terror\t" in line]
        assert len(errors) == 1
        assert room in errors[0]
        assert errors[0].endswith(f": {name}")
        prosody.backend.on("room-created", reply({"chatEnabled": True}))
        assert (await ann.join(room)).joined, "nothing of it is remembered"


async def test_every_protective_setting_is_tried() -> None:
    assert UNREADABLE.keys() == PROTECTIVE.keys()


async def test_all_that_cannot_be_read_is_named_at_once(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"password": [], "membersOnly": "yes", "hidden": 5, "chatEnabled": 1}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).denied
    assert "have a wrong type: hidden, membersOnly, password" in prosody.log_of_test()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"membersOnly": "true", "hidden": 1}, {"members_only": True, "hidden": True}),
        ({"membersOnly": "false", "hidden": 0}, {"members_only": False, "hidden": False}),
        ({"membersOnly": "", "hidden": None, "password": ""}, {"members_only": False, "password": ""}),
    ],
)
async def test_a_flag_is_read_where_it_is_beyond_doubt(
    prosody: Server, room: str, written: dict[str, Any], read: dict[str, Any]
) -> None:
    prosody.backend.on("room-created", reply(written))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).joined
        assert read.items() <= (await settings_of(prosody, room)).items()


@pytest.mark.parametrize(
    ("written", "typed"), [(4711, "4711"), (0, "0"), (4711.0, "4711"), (2**53 - 1, str(2**53 - 1))]
)
async def test_a_number_is_a_password_of_these_digits(prosody: Server, room: str, written: object, typed: str) -> None:
    prosody.backend.on("room-created", reply({"password": written}))
    async with Client.connect(prosody) as ann:
        assert str((await ann.join(room)).error) == "auth/not-authorized"
        assert (await ann.join(room, password=typed)).joined


@pytest.mark.parametrize(("written", "limit"), [("2", 2), (2.0, 2), (0, None), ("0", None), (10**12, 2**31 - 1)])
async def test_a_numeral_is_a_limit(prosody: Server, room: str, written: object, limit: int | None) -> None:
    prosody.backend.on("room-created", reply({"maxParticipants": written}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).joined
        assert (await data_of(prosody, room)).get("max_participants") == limit


async def test_the_frontend_gets_a_lobby_flag_as_one(prosody: Server, room: str) -> None:
    prosody.backend.on("room-created", reply({"lobbyEnabled": "false"}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).config == {"lobbyEnabled": False}


async def test_the_last_good_config_of_a_persistent_room_serves(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True, storage="internal")
    prosody.backend.on("room-created", reply({"persistent": True, "password": "right"}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room, password="right")).joined
    await prosody.restart()
    prosody.backend.on("room-created", reply({"persistent": True, "password": ["right"]}))
    async with Client.connect(prosody) as ann:
        assert (await ann.join(room)).denied
        assert (await ann.join(room, password="right")).joined


async def test_a_sidecars_answer_is_judged_too(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(fresh=True)
    await prosody.link_up()
    prosody.backend.on("room-created", reply({"password": ["right"]}))
    async with Client.connect(prosody) as ann, Client.connect(prosody) as bob:
        for user in (ann, bob):
            assert str((await user.join(room)).error) == NO_CONFIG
        assert room not in await prosody.rooms()
