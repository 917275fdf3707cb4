"""Whether the sidecar is degraded, and what an operator should know before it is."""

from __future__ import annotations

import pytest

from sidecar.core.model import Endpoint
from sidecar.telemetry.health import Health
from tests.unit.builders import ALLOW_LIFETIMES, a_policy
from tests.unit.harness import CONFIG, DECISION, Harness, allow, broken, config, deny
from tests.unit.virtual import in_virtual_time

SPRING_SECURITY = "no-cache, no-store, max-age=0, must-revalidate"


def seen(harness: Harness) -> Health:
    health = Health()
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
