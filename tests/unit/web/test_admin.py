"""The admin listener: what operators can ask, and what they can order."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from sidecar.core.events import Listed, Numbers
from sidecar.errors import DiskError
from sidecar.web.admin import Admin
from tests.unit.harness import DECISION, Harness

Client = TestClient[Any, Any]


class Health:
    serving = True

    def __init__(self) -> None:
        self.why: list[str] = []
        self.what_else: list[str] = []

    def reasons(self) -> list[str]:
        return self.why

    def notes(self) -> list[str]:
        return self.what_else


class Outbox:
    """One event is parked."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, Numbers, bool]] = []
        self.error: Exception | None = None

    def pending(self) -> int:
        return 0

    def parked(self) -> int:
        return 1

    def oldest_age(self) -> float:
        return 0.0

    async def listing(self, *, parked: bool, after: int = 0, most: int = 100) -> list[Listed]:
        return [Listed(7, "user-joined", "standup", "k-1", 1.7e9, 12, 1.7e9, "refused", 410)] if parked else []

    async def retry(self, numbers: Numbers) -> int:
        if self.error is not None:
            raise self.error
        self.orders.append(("retry", numbers, True))
        return 1

    async def drop(self, numbers: Numbers, *, parked: bool = True) -> int:
        self.orders.append(("drop", numbers, parked))
        return 1


class Setup:
    """An admin listener with a real resolver and cache."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.health = Health()
        self.outbox = Outbox()
        self.admin = Admin(
            self.harness.resolver,
            self.harness.guards,
            self.outbox,
            self.health,
            lambda: b"sidecar_up 1\n",
            lambda: {"version": "1.2.3"},
            self.harness.clock,
        )


@pytest.fixture
async def setup() -> Setup:
    return Setup()


@pytest.fixture
async def client(setup: Setup, aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(setup.admin.app())


async def test_a_live_process_says_so(client: Client) -> None:
    assert await (await client.get("/livez")).json() == {"status": "alive"}


async def test_a_degraded_sidecar_is_still_ready(client: Client, setup: Setup) -> None:
    setup.health.why = ["the disk is full"]
    response = await client.get("/readyz")
    document = {"status": "degraded", "reasons": ["the disk is full"], "notes": []}
    assert (response.status, await response.json()) == (200, document)


async def test_a_note_does_not_degrade(client: Client, setup: Setup) -> None:
    setup.health.what_else = ["nothing is kept"]
    response = await client.get("/readyz")
    document = {"status": "ready", "reasons": [], "notes": ["nothing is kept"]}
    assert (response.status, await response.json()) == (200, document)


async def test_a_sidecar_that_starts_or_stops_is_not_ready(client: Client, setup: Setup) -> None:
    setup.health.serving = False
    assert (await client.get("/readyz")).status == 503


async def test_the_metrics_are_in_prometheus_text_format(client: Client) -> None:
    response = await client.get("/metrics")
    assert (response.content_type, await response.read()) == ("text/plain", b"sidecar_up 1\n")


async def test_the_status_counts_entries_events_and_calls(client: Client, setup: Setup) -> None:
    await setup.harness.asks()
    status = await (await client.get("/status")).json()
    assert status["version"] == "1.2.3"
    assert status["cache"] == {"allow": 1, "deny": 0, "config": 0}
    assert status["outbox"] == {"pending": 0, "oldest_seconds": 0.0, "parked": 1}
    assert status["endpoints"][DECISION] == {"breaker": "closed", "calls_under_way": 0, "calls_waiting": 0}


async def test_an_explanation_says_what_would_be_answered_and_why(client: Client, setup: Setup) -> None:
    await setup.harness.asks("ann@example.org")
    response = await client.get("/explain", params={"room": "standup", "user": "ann@example.org"})
    answers = (await response.json())["answers"]
    assert [answer["subject"] for answer in answers] == ["jid ann@example.org"]
    assert answers[0]["now"] == "answers from memory: allow, since it is fresh"


async def test_an_explanation_needs_a_room(client: Client) -> None:
    response = await client.get("/explain")
    assert response.status == 400
    assert "?room=NAME" in (await response.json())["detail"]


async def test_a_purge_deletes_what_it_names_and_nothing_else(client: Client, setup: Setup) -> None:
    for room in ("standup", "retro"):
        await setup.harness.asks(room=room)
    response = await client.post("/purge", json={"room": "retro"})
    assert await response.json() == {"purged": 1}
    assert [key.room for key, _ in setup.harness.cache.items()] == ["standup"]


async def test_a_purge_of_everything_must_say_all(client: Client, setup: Setup) -> None:
    await setup.harness.asks()
    assert (await client.post("/purge", json={})).status == 400
    assert await (await client.post("/purge", json={"all": True})).json() == {"purged": 1}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ('{"all":true}', "text/plain", 415),
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ('{"everything":true}', "application/json", 400),
    ],
)
async def test_an_order_that_cannot_be_understood_changes_nothing(
    client: Client, setup: Setup, body: str, content_type: str, status: int
) -> None:
    await setup.harness.asks()
    response = await client.post("/purge", data=body, headers={"Content-Type": content_type})
    assert response.status == status
    assert len(setup.harness.cache) == 1


async def test_the_outbox_is_listed_without_bodies(client: Client) -> None:
    document = await (await client.get("/outbox")).json()
    assert document["counts"]["parked"] == 1
    assert [event["number"] for event in document["parked"]] == [7]
    assert "body" not in document["parked"][0]
    assert document["waiting"] == []


async def test_events_are_retried_or_dropped_by_number_or_all(client: Client, setup: Setup) -> None:
    await client.post("/outbox/retry", json={"numbers": [7]})
    await client.post("/outbox/drop", json={"all": True})
    await client.post("/outbox/drop", json={"numbers": [8], "waiting": True})
    assert setup.outbox.orders == [("retry", [7], True), ("drop", None, True), ("drop", [8], False)]


@pytest.mark.parametrize(
    "order", [{}, {"numbers": []}, {"numbers": ["7"]}, {"numbers": [True]}, {"numbers": [7], "all": 1, "x": 2}]
)
async def test_an_order_must_name_its_events(client: Client, setup: Setup, order: dict[str, object]) -> None:
    assert (await client.post("/outbox/drop", json=order)).status == 400
    assert setup.outbox.orders == []


async def test_a_disk_that_fails_is_a_503_with_the_reason(client: Client, setup: Setup) -> None:
    setup.outbox.error = DiskError("the disk is full")
    response = await client.post("/outbox/retry", json={"all": True})
    assert (response.status, (await response.json())["detail"]) == (503, "the disk is full")
