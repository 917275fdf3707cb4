"""Whether the sidecar is degraded, and what an operator should know before it is."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import Asked, BreakerChanged, DiskChanged, Fact, OutboxChanged, Reloaded, Resolved
from sidecar.telemetry.health import FAILURES_IN_A_ROW, KINDS, REFUSALS_SHOWN_FOR, Health
from tests.unit.builders import ALLOW_LIFETIMES, a_policy
from tests.unit.harness import CONFIG, DECISION, Harness, allow, broken, config, deny
from tests.unit.virtual import VirtualClock, in_virtual_time

SPRING_SECURITY = "no-cache, no-store, max-age=0, must-revalidate"


def seen(harness: Harness) -> Health:
    health = Health(harness.clock)
    for fact in harness.facts:
        health.observe(fact)
    return health


@in_virtual_time
async def test_answers_that_must_not_be_kept_are_a_note_and_do_not_degrade() -> None:
    harness = Harness()
    harness.backend.says(allow(cache_control=SPRING_SECURITY))
    await harness.asks()
    health = seen(harness)
    (note,) = health.notes()
    assert "Cache-Control: no-store, no-cache or must-revalidate" in note
    assert "no user will be let in, also no user who is known" in note
    assert "backend.cache_control: ignore" in note
    assert (health.reasons(), health.forbids_outage_use(DECISION)) == ([], True)


@in_virtual_time
async def test_the_note_says_what_happens_in_the_outage() -> None:
    harness = Harness()
    harness.backend.says(allow(cache_control=SPRING_SECURITY))
    await harness.asks()
    harness.backend.always(broken())
    assert not (await harness.asks()).allowed


@in_virtual_time
async def test_the_note_goes_with_the_next_answer_that_may_be_kept() -> None:
    harness = Harness()
    harness.backend.says(allow(cache_control="no-store"), deny(), allow())
    await harness.asks("ann@example.com")
    await harness.asks("bob@example.com")
    assert len(seen(harness).notes()) == 1
    await harness.asks("eve@example.com")
    assert seen(harness).notes() == []


@pytest.mark.parametrize("cache_control", ["", "max-age=0", "private", "max-age=60"])
def test_an_answer_that_helps_in_an_outage_is_no_note(cache_control: str) -> None:
    @in_virtual_time
    async def asked() -> None:
        harness = Harness()
        harness.backend.says(allow(cache_control=cache_control))
        await harness.asks()
        assert seen(harness).notes() == []

    asked()


@in_virtual_time
async def test_a_deny_that_must_not_be_kept_is_no_note() -> None:
    harness = Harness()
    harness.backend.says(deny(cache_control="no-store"))
    await harness.asks()
    assert seen(harness).notes() == []


@in_virtual_time
async def test_who_wants_it_so_gets_no_note() -> None:
    harness = Harness(decision=a_policy(ALLOW_LIFETIMES._replace(stale_if_error=0)))
    harness.backend.says(allow(cache_control="no-store"))
    await harness.asks()
    assert seen(harness).notes() == []


@in_virtual_time
async def test_a_room_config_that_must_not_be_kept_is_a_note_of_its_own() -> None:
    harness = Harness()
    harness.backend.says(config(cache_control="no-store"))
    await harness.asks_config()
    (note,) = seen(harness).notes()
    assert "no room gets its own config" in note
    assert seen(harness).forbids_outage_use(CONFIG)
    assert not seen(harness).forbids_outage_use(Endpoint.VALIDATE_ACCESS)


def answered(source: Source, *, allowed: bool, endpoint: Endpoint = DECISION) -> Resolved:
    return Resolved(endpoint, 200, 0.1, Answer(200, b"", source, allowed))


@in_virtual_time
async def test_a_join_that_was_refused_by_policy_is_a_note_for_ten_minutes() -> None:
    health = Health(VirtualClock())
    for _ in range(2):
        health.observe(answered(Source.POLICY, allowed=False))
    (note,) = health.notes()
    assert note.startswith("joins: 2 joins were refused by policy in the last 10.0 min, the last one 0 s ago")
    await asyncio.sleep(REFUSALS_SHOWN_FOR + 1)
    assert health.notes() == []


@in_virtual_time
async def test_a_room_that_nobody_could_open_is_a_note_although_the_join_was_allowed() -> None:
    harness, health = Harness(), Health(VirtualClock())
    harness.backend.always(broken())
    refused = await harness.asks_config()
    health.observe(Resolved(CONFIG, refused.status, 0.1, refused))
    health.observe(answered(Source.BACKEND, allowed=True))
    (note,) = health.notes()
    assert note.startswith("rooms: once in the last 10.0 min, the last one 0 s ago, nobody could open a room")
    await asyncio.sleep(REFUSALS_SHOWN_FOR + 1)
    assert health.notes() == []


@pytest.mark.parametrize(
    "fact",
    [
        answered(Source.BACKEND, allowed=False),
        answered(Source.POLICY, allowed=True),
        answered(Source.POLICY, allowed=False, endpoint=CONFIG),
    ],
    ids=["a deny of the backend", "let in by policy", "a config by policy"],
)
def test_nobody_was_refused_by_policy(fact: Fact) -> None:
    @in_virtual_time
    async def observed() -> None:
        health = Health(VirtualClock())
        health.observe(fact)
        assert health.notes() == []

    observed()


def test_each_reason_counts_as_one_of_its_kind_until_it_is_over() -> None:
    health = Health(VirtualClock())
    begins: dict[str, Fact] = {
        "secret": Asked(DECISION, "misconfigured", 0.1, 401),
        "breaker": BreakerChanged(DECISION, "open"),
        "disk": DiskChanged("events.db", usable=False, reason="full"),
        "outbox": OutboxChanged(full=True),
        "config": Reloaded(problems=("sidecar.yaml:1:1: wrong",)),
    }
    ends = (
        Asked(DECISION, "replied", 0.1, 200),
        BreakerChanged(DECISION, "closed"),
        DiskChanged("events.db", usable=True),
        OutboxChanged(full=False),
        Reloaded(),
    )
    for fact in begins.values():
        health.observe(fact)
    assert {kind: health.count(kind) for kind in KINDS} == {kind: int(kind in begins) for kind in KINDS}
    for end in ends:
        health.observe(end)
    assert health.reasons() == []


@pytest.mark.parametrize(("status", "advice"), [(401, "write it again"), (None, "check --online")])
def test_a_wrong_secret_and_a_wrong_certificate_have_their_own_advice(status: int | None, advice: str) -> None:
    health = Health(VirtualClock())
    health.secret_advice = "write it again"
    health.observe(Asked(DECISION, "misconfigured", 0.1, status))
    assert advice in health.reasons()[0]


def test_a_wrong_certificate_is_no_reason_any_more_when_the_calls_fail_otherwise() -> None:
    health = Health(VirtualClock())
    health.observe(Asked(DECISION, "misconfigured", 0.1, None, "the certificate has expired"))
    for _ in range(FAILURES_IN_A_ROW):
        health.observe(Asked(DECISION, "unavailable", 0.1, None, "no connection"))
    assert health.reasons() == ["backend: the last 3 calls failed (no connection)"]
