"""The edge towards Prosody: what it answers when something behind it is broken."""

from __future__ import annotations

import json

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import RawTestServer

from sidecar.clock import SystemClock
from sidecar.core.model import Answer, Endpoint, Event, Query
from sidecar.errors import DiskError, OutboxFull
from sidecar.facts import Crashed, Fact
from sidecar.web.webhooks import Webhooks, WebhookSettings

PREFIX = "/webhooks/jitsi"


class Broken:
    """A resolver with a defect, and an outbox that takes nothing."""

    def __init__(self, why: Exception) -> None:
        self.why = why

    async def resolve(self, query: Query) -> Answer:
        raise self.why

    async def resolve_along(self, query: Query, first: Query) -> Answer | None:
        raise self.why

    async def accept(self, event: Event) -> None:
        raise self.why


async def answer_of(endpoint: Endpoint, why: Exception) -> tuple[int, dict[str, object], dict[str, str], list[Fact]]:
    """What Prosody gets for a well-formed request: status, body, headers, and the facts that were emitted."""
    facts: list[Fact] = []
    broken = Broken(why)
    webhooks = Webhooks(broken, broken, WebhookSettings(PREFIX), SystemClock(), lambda size: "ab" * size, facts.append)
    body = {"roomName": "standup", "userJid": "ann@example.org/desk", "timestamp": 1}
    async with (
        RawTestServer(webhooks.handle) as server,
        ClientSession() as session,
        session.post(server.make_url(f"{PREFIX}/{endpoint}"), json=body) as response,
    ):
        return response.status, json.loads(await response.read()), dict(response.headers), facts


async def test_a_defect_keeps_a_user_out_with_a_definite_answer() -> None:
    status, body, headers, facts = await answer_of(Endpoint.VALIDATE_ACCESS, RuntimeError("a defect"))
    assert (status, body["allowed"]) == (200, False)
    assert headers["Cache-Status"] == "prosody-sidecar; detail=defect"
    assert [fact.where for fact in facts if isinstance(fact, Crashed)] == ["resolver"]


async def test_a_defect_leaves_a_room_without_config_and_says_so() -> None:
    status, body, headers, _ = await answer_of(Endpoint.ROOM_CREATED, RuntimeError("a defect"))
    assert (status, body["status"]) == (503, 503)
    assert headers["Content-Type"] == "application/problem+json"
    assert "Retry-After" in headers


@pytest.mark.parametrize("why", [OutboxFull("9 events wait"), DiskError("the disk is full")])
async def test_an_event_that_is_not_safe_is_not_acknowledged(why: Exception) -> None:
    status, body, headers, _ = await answer_of(Endpoint.USER_JOINED, why)
    assert status == 503
    assert str(why) in str(body["detail"])
    assert headers["Retry-After"] == "5"
