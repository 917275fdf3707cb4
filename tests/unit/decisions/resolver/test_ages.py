"""The resolver and the age of what it remembers."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Source, Verdict
from sidecar.web.responses import cache_status
from tests.unit.builders import a_policy
from tests.unit.harness import (
    DISTRUST,
    REFUSED,
    RESET,
    Harness,
    after,
    allow,
    broken,
    deny,
    now,
    reason,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_a_fresh_answer_asks_nobody() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(14)
    answer = await harness.asks()
    assert (answer.source, answer.allowed, len(harness.backend.calls)) == (Source.HIT, True, 1)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=0"


@in_virtual_time
async def test_within_stale_while_revalidate_the_answer_is_at_once_and_the_refresh_behind_it() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(16)
    harness.backend.says(after(3, allow(seat=7)))
    begun = now()
    answer = await harness.asks()
    assert now() == begun
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=-2; detail=stale-while-revalidate"
    await harness.passes(3.1)
    assert json.loads((await harness.asks()).body)["seat"] == 7
    assert len(harness.backend.calls) == 2


@in_virtual_time
async def test_two_who_come_while_a_refresh_is_under_way_cause_no_second_one() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(16)
    harness.backend.always(after(1, allow()))
    await asyncio.gather(*(harness.asks() for _ in range(5)))
    await harness.passes(0.5)
    await harness.asks()
    assert len(harness.backend.calls) == 2


@in_virtual_time
async def test_within_stale_if_error_a_backend_that_is_well_decides() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(100)
    harness.backend.says(deny("Cancelled"))
    answer = await harness.asks()
    assert (answer.allowed, reason(answer), answer.source) == (False, "Cancelled", Source.BACKEND)
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; stored"


@in_virtual_time
async def test_within_stale_if_error_a_backend_that_fails_is_stood_in_for() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(355.5)
    for failure in (broken(), RESET, REFUSED, DISTRUST):
        harness.backend.always(failure)
        answer = await harness.asks()
        assert (answer.allowed, answer.source) == (True, Source.STALE)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=-341; detail=stale-if-error"


@in_virtual_time
async def test_a_slow_backend_is_waited_for_half_a_second_and_its_answer_is_kept() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(100)
    harness.backend.says(after(1.5, deny("Cancelled")))
    begun = now()
    answer = await harness.asks()
    assert now() - begun == pytest.approx(0.5, abs=0.01)
    assert (answer.allowed, answer.source) == (True, Source.STALE)
    await harness.passes(1.1)
    answer = await harness.asks()
    assert (answer.allowed, reason(answer)) == (False, "Cancelled")
    assert len(harness.backend.calls) == 2


@in_virtual_time
async def test_answer_within_is_the_rooms_own() -> None:
    harness = Harness(decision=a_policy(answer_within=2.0))
    await harness.asks()
    await harness.passes(100)
    harness.backend.says(after(1.5, deny("Cancelled")))
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_an_expired_allow_is_not_used_even_if_nobody_can_be_asked() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(15 + 3600 + 1)
    harness.backend.always(broken())
    answer = await harness.asks()
    assert (answer.allowed, answer.source) == (False, Source.POLICY)
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; fwd-status=500; detail=refused"


@in_virtual_time
async def test_the_age_of_an_answer_counts_from_the_question() -> None:
    harness = Harness()
    harness.backend.says(after(3, allow()))
    await harness.asks()
    await harness.passes(12.5)
    assert (await harness.asks()).detail == "stale-while-revalidate"


@in_virtual_time
async def test_jitter_only_shortens() -> None:
    harness = Harness(jitter=1.0)
    await harness.asks()
    await harness.passes(13.4)
    assert (await harness.asks()).source is Source.HIT
    await harness.passes(0.3)
    assert (await harness.asks()).detail == "stale-while-revalidate"


@pytest.mark.parametrize(
    "cache_control",
    ["must-revalidate", "no-cache", "stale-if-error=0, stale-while-revalidate=0", "max-age=0, no-store"],
)
def test_an_answer_the_backend_wants_checked_is_not_used_when_stale(cache_control: str) -> None:
    @in_virtual_time
    async def run() -> None:
        harness = Harness()
        harness.backend.says(allow(cache_control))
        await harness.asks()
        await harness.passes(16)
        harness.backend.always(broken())
        answer = await harness.asks()
        assert (answer.allowed, answer.source) == (False, Source.POLICY)

    run()


@in_virtual_time
async def test_max_age_shortens_and_never_lengthens() -> None:
    harness = Harness()
    harness.backend.says(allow("max-age=3"), allow("max-age=3000, stale-if-error=999999"))
    await harness.asks()
    await harness.passes(4)
    assert (await harness.asks()).detail == "stale-while-revalidate"
    await harness.passes(14.5)
    assert (await harness.asks()).source is Source.HIT
    await harness.passes(1)
    assert (await harness.asks()).detail == "stale-while-revalidate"


@in_virtual_time
async def test_garbage_changes_nothing_of_what_is_remembered() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(100)
    harness.backend.says(broken(200), broken(200))
    assert (await harness.asks()).allowed is True
    assert harness.cache.count(Verdict.ALLOW) == 1
    assert (await harness.asks("unknown@example.com")).stored is False
    assert harness.cache.count(Verdict.DENY) == 0
