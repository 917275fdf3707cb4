"""The gateway and the age of what it remembers."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.core.model import Source, Verdict
from sidecar.web import cache_status
from tests.unit.harness import (
    DISTRUST,
    REFUSED,
    RESET,
    Stage,
    after,
    allow,
    broken,
    deny,
    now,
    reason,
    rules,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_a_fresh_answer_asks_nobody() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(14)
    answer = await stage.asks()
    assert (answer.source, answer.allowed, len(stage.backend.calls)) == (Source.HIT, True, 1)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=0"


@in_virtual_time
async def test_within_stale_while_revalidate_the_answer_is_at_once_and_the_refresh_behind_it() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(16)
    stage.backend.says(after(3, allow(seat=7)))
    begun = now()
    answer = await stage.asks()
    assert now() == begun
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=-2; detail=stale-while-revalidate"
    await stage.passes(3.1)
    assert json.loads((await stage.asks()).body)["seat"] == 7
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_two_who_come_while_a_refresh_is_under_way_cause_no_second_one() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(16)
    stage.backend.always(after(1, allow()))
    await asyncio.gather(*(stage.asks() for _ in range(5)))
    await stage.passes(0.5)
    await stage.asks()
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_within_stale_if_error_a_backend_that_is_well_decides() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(deny("Cancelled"))
    answer = await stage.asks()
    assert (answer.allowed, reason(answer), answer.source) == (False, "Cancelled", Source.BACKEND)
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; stored"


@in_virtual_time
async def test_within_stale_if_error_a_backend_that_fails_is_stood_in_for() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(355.5)
    for failure in (broken(), RESET, REFUSED, DISTRUST):
        stage.backend.always(failure)
        answer = await stage.asks()
        assert (answer.allowed, answer.source) == (True, Source.STALE)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=-341; detail=stale-if-error"


@in_virtual_time
async def test_a_slow_backend_is_waited_for_half_a_second_and_its_answer_is_kept() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(after(1.5, deny("Cancelled")))
    begun = now()
    answer = await stage.asks()
    assert now() - begun == pytest.approx(0.5, abs=0.01)
    assert (answer.allowed, answer.source) == (True, Source.STALE)
    await stage.passes(1.1)
    answer = await stage.asks()
    assert (answer.allowed, reason(answer)) == (False, "Cancelled")
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_answer_within_is_the_rooms_own() -> None:
    stage = Stage(decision=rules(answer_within=2.0))
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(after(1.5, deny("Cancelled")))
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_an_expired_allow_is_not_used_even_if_nobody_can_be_asked() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(15 + 3600 + 1)
    stage.backend.always(broken())
    answer = await stage.asks()
    assert (answer.allowed, answer.source) == (False, Source.POLICY)
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; fwd-status=500; detail=refused"


@in_virtual_time
async def test_the_age_of_an_answer_counts_from_the_question() -> None:
    stage = Stage()
    stage.backend.says(after(3, allow()))
    await stage.asks()
    await stage.passes(12.5)
    assert (await stage.asks()).detail == "stale-while-revalidate"


@in_virtual_time
async def test_jitter_only_shortens() -> None:
    stage = Stage(jitter=1.0)
    await stage.asks()
    await stage.passes(13.4)
    assert (await stage.asks()).source is Source.HIT
    await stage.passes(0.3)
    assert (await stage.asks()).detail == "stale-while-revalidate"


@pytest.mark.parametrize(
    "cache_control",
    ["must-revalidate", "no-cache", "stale-if-error=0, stale-while-revalidate=0", "max-age=0, no-store"],
)
def test_an_answer_the_backend_wants_checked_is_not_used_when_stale(cache_control: str) -> None:
    @in_virtual_time
    async def run() -> None:
        stage = Stage()
        stage.backend.says(allow(cache_control))
        await stage.asks()
        await stage.passes(16)
        stage.backend.always(broken())
        answer = await stage.asks()
        assert (answer.allowed, answer.source) == (False, Source.POLICY)

    run()


@in_virtual_time
async def test_max_age_shortens_and_never_lengthens() -> None:
    stage = Stage()
    stage.backend.says(allow("max-age=3"), allow("max-age=3000, stale-if-error=999999"))
    await stage.asks()
    await stage.passes(4)
    assert (await stage.asks()).detail == "stale-while-revalidate"
    await stage.passes(14.5)
    assert (await stage.asks()).source is Source.HIT
    await stage.passes(1)
    assert (await stage.asks()).detail == "stale-while-revalidate"


@in_virtual_time
async def test_garbage_changes_nothing_of_what_is_remembered() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(broken(200), broken(200))
    assert (await stage.asks()).allowed is True
    assert stage.cache.count(Verdict.ALLOW) == 1
    assert (await stage.asks("stranger@example.com")).stored is False
    assert stage.cache.count(Verdict.DENY) == 0
