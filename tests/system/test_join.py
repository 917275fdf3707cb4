"""A join in one question on the link: the decision, and with it the room's config, over real sockets.

The module takes either part for what it is, so each must be what its own endpoint would have said.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.rig.answers import hold, raw, settings_by_name, settings_of, slow
from tests.rig.backend import BY_NAME, Backend
from tests.rig.link import Link, Message
from tests.rig.sidecar import Sidecar

DEADLINE = 1.0
DEADLINES: dict[str, Any] = {name: {"deadline": DEADLINE} for name in ("validate-access", "room-created")}
MUC = "conference.example.com"


@dataclass(frozen=True, slots=True)
class Joined:
    """What the module reads from an answer."""

    answer: Message
    seconds: float

    @property
    def decision(self) -> dict[str, Any]:
        document: dict[str, Any] = self.answer.document
        return document

    @property
    def config(self) -> bytes | None:
        return self.answer.config

    @property
    def config_status(self) -> int | None:
        return self.answer.config_status


async def join(
    sidecar: Sidecar, room: str, who: str = "ann@example.com", *, config: bool = True, **more: Any
) -> Joined:
    """One question."""
    body = {"roomName": room, "roomJid": f"{room}@{MUC}", "userJid": who, "timestamp": 1, **more}
    async with Link.open(sidecar.webhooks) as link:
        begun = time.monotonic()
        answer = await link.asks("join config" if config else "join", body)
    assert answer.status == 200, answer
    return Joined(answer, time.monotonic() - begun)


async def test_whoever_may_come_in_learns_the_settings_in_the_same_breath(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        first = await join(sidecar, "standup")
        assert first.decision["allowed"] is True
        assert (first.config_status, first.config) == (200, settings_of("standup"))
        assert [request.endpoint for request in backend.requests] == ["validate-access", "room-created"]
        again = await join(sidecar, "standup")
        assert again.config == first.config
        assert (first.decision["decidedBy"], again.decision["decidedBy"]) == ("backend", "memory")
        assert first.decision["decisionId"] != again.decision["decisionId"]
        assert again.decision["allowed"] is True
        assert [line["source"] for line in await sidecar.logged("request")] == ["backend", "backend", "hit", "hit"]
        assert len(backend.asked()) == 2


async def test_each_part_is_remembered_as_if_it_had_been_asked_for_alone(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        await join(sidecar, "standup")
        body = {"roomName": "standup", "roomJid": f"standup@{MUC}", "userJid": "ann@example.com/desk", "timestamp": 9}
        assert not (await sidecar.post("validate-access", json.dumps(body).encode())).asked
        config = await sidecar.post("room-created", json.dumps({**body, "creator": "bob@example.com"}).encode())
        assert (config.asked, config.body) == (False, settings_of("standup"))


async def test_the_settings_come_only_if_they_are_wanted(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        joined = await join(sidecar, "standup", config=False)
        assert (joined.decision["allowed"], joined.config_status, joined.config) == (True, None, None)
        assert backend.asked("room-created") == []


async def test_a_room_nobody_may_enter_is_never_announced(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        joined = await join(sidecar, "deny-all")
        assert (joined.decision["allowed"], joined.decision["reason"]) == (False, "deny-all is cancelled")
        assert (joined.config_status, joined.config) == (None, None)
        assert backend.asked("room-created") == []


async def test_the_backend_hears_of_a_room_what_rooms_are_made_of(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        await join(sidecar, "standup", "ann@example.com/desk", bearerToken="a-token", userName="Ann", userId="7")
        access, created = backend.requests
        assert access.body["bearerToken"] == "a-token"
        assert access.body["userName"] == "Ann"
        assert created.body == {
            "roomName": "standup",
            "roomJid": f"standup@{MUC}",
            "timestamp": 1,
            "creator": "ann@example.com",
        }
        assert access.headers["traceparent"][:35] == created.headers["traceparent"][:35]


async def test_a_refusal_of_the_room_comes_with_its_status(backend: Backend) -> None:
    backend.on("room-created", raw('{"reason":"no such meeting"}', status=404))
    async with Sidecar.start(backend.url) as sidecar:
        joined = await join(sidecar, "standup")
        assert joined.decision["allowed"] is True
        assert (joined.config_status, joined.config) == (404, b'{"reason":"no such meeting"}')


async def test_without_a_backend_what_is_remembered_answers_and_what_is_not_says_so(backend: Backend) -> None:
    async with Sidecar.start(backend.url, {"endpoints": {"validate-access": {"on_unavailable": "allow"}}}) as sidecar:
        await join(sidecar, "known")
        await backend.stop()
        known, unknown = await join(sidecar, "known"), await join(sidecar, "unknown")
        assert (known.config_status, known.config) == (200, settings_of("known"))
        assert unknown.decision["allowed"] is True  # by the policy
        assert unknown.config_status == 503
        assert json.loads(unknown.config or b"")["status"] == 503


async def test_settings_that_had_all_their_time_cannot_be_had(backend: Backend) -> None:
    held = hold(settings_by_name)
    backend.on("room-created", held)
    async with Sidecar.start(backend.url, {"endpoints": DEADLINES}) as sidecar:
        joined = await join(sidecar, "slow")
        assert (joined.decision["allowed"], joined.config_status) == (True, 503)
        assert joined.seconds < DEADLINE + 0.5
        held.release()


async def test_a_slow_decision_does_not_take_the_time_of_the_settings(backend: Backend) -> None:
    for endpoint, answer in BY_NAME.items():
        backend.on(endpoint, slow(0.6 * DEADLINE, answer))
    async with Sidecar.start(backend.url, {"endpoints": DEADLINES}) as sidecar:
        joined = await join(sidecar, "slow")
        assert (joined.decision["allowed"], joined.config_status, joined.config) == (True, None, None)
        assert joined.seconds < DEADLINE + 0.5
        config = await sidecar.configures("slow", roomJid=f"slow@{MUC}")
        assert (config.status, config.body) == (200, settings_of("slow"))
        assert len(backend.asked()) == 2  # the call that was under way has answered it


async def test_twenty_at_once_make_one_room(backend: Backend) -> None:
    backend.latency = 0.1
    backend.headers = {"Cache-Control": "no-store"}
    async with Sidecar.start(backend.url) as sidecar:
        joins = await asyncio.gather(*(join(sidecar, "all-hands", f"user-{n}@example.com") for n in range(20)))
        assert {joined.config for joined in joins} == {settings_of("all-hands")}
        assert len(backend.asked("room-created")) == 1


async def test_each_part_has_its_line_and_its_number(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        await join(sidecar, "standup")
        lines = await sidecar.logged("request")
        assert len({line["trace"] for line in lines}) == 1
        assert [(line["endpoint"], line["source"]) for line in lines] == [
            ("room-created", "backend"),
            ("validate-access", "backend"),
        ]
        assert await sidecar.metric("requests_total", endpoint="validate-access", source="backend") == 1
        assert await sidecar.metric("requests_total", endpoint="room-created", source="backend") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "roomName"), ({"roomName": "a"}, "userJid"), ({"roomName": 1, "userJid": "b"}, "roomName")],
)
async def test_a_mistake_is_answered_as_everywhere(backend: Backend, body: dict[str, Any], field: str) -> None:
    async with Sidecar.start(backend.url) as sidecar, Link.open(sidecar.webhooks) as link:
        answer = await link.asks("join config", body)
        assert (answer.status, answer.document["field"]) == (400, field)
        assert backend.requests == []


async def test_a_field_of_another_kind_is_no_part_of_the_room(backend: Backend) -> None:
    async with Sidecar.start(backend.url) as sidecar:
        joined = await join(sidecar, "standup", timestamp={"at": [1]})
        assert joined.config == settings_of("standup")
        assert "timestamp" not in backend.requests[1].body


async def test_who_lacks_the_listeners_token_opens_no_link(backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-enough-length")
    async with Sidecar.start(backend.url, {"listen": {"token_file": str(tmp_path / "token")}}) as sidecar:
        for headers in ({}, {"X-Webhook-Secret": "another"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with Link.open(sidecar.webhooks, headers=headers):
                    pass
            assert refused.value.status == 401
        async with Link.open(sidecar.webhooks, headers={"X-Webhook-Secret": "a-token-of-enough-length"}) as link:
            assert (await link.asks("join", {"roomName": "standup", "userJid": "ann@example.com"})).status == 200
