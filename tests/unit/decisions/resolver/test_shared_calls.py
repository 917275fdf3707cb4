"""One question at a time per key, and nobody stranded."""

from __future__ import annotations

import asyncio

from sidecar.core.model import Source
from sidecar.web.responses import cache_status
from tests.unit.harness import (
    DECISION,
    HANG,
    Harness,
    after,
    allow,
    broken,
    crash,
    now,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_a_hundred_who_ask_the_same_at_once_make_one_call() -> None:
    harness = Harness()
    harness.backend.always(after(0.3, allow()))
    answers = await asyncio.gather(*(harness.asks() for _ in range(100)))
    assert all(answer.allowed for answer in answers)
    assert len(harness.backend.calls) == 1
    assert sum(answer.collapsed for answer in answers) == 99
    assert cache_status(answers[1]) == "prosody-sidecar; fwd=miss; stored; collapsed"


@in_virtual_time
async def test_a_leader_that_hangs_up_strands_nobody_and_costs_no_second_call() -> None:
    harness = Harness()
    harness.backend.always(after(0.3, allow()))
    leader, follower = harness.soon(), harness.soon()
    await settled()
    leader.cancel()
    assert (await follower).allowed is True
    assert len(harness.backend.calls) == 1


@in_virtual_time
async def test_a_call_all_of_whose_callers_hang_up_is_remembered() -> None:
    harness = Harness()
    harness.backend.always(after(0.3, allow()))
    leader = harness.soon()
    await settled()
    leader.cancel()
    await harness.passes(0.5)
    assert (await harness.asks()).source is Source.HIT


@in_virtual_time
async def test_a_call_that_crashes_is_reported_and_answers_everybody_by_policy() -> None:
    harness = Harness()
    harness.backend.says(crash)
    answers = await asyncio.gather(*(harness.asks() for _ in range(5)))
    assert [answer.allowed for answer in answers] == [False] * 5
    assert [str(error) for error in harness.crashes()] == ["a defect"]
    assert (await harness.asks()).allowed is True


@in_virtual_time
async def test_a_call_that_is_cancelled_answers_everybody_by_policy() -> None:
    harness = Harness()
    harness.backend.says(HANG)
    waiting = [harness.soon() for _ in range(3)]
    await settled()
    await harness.resolver.drain(0)
    assert [(await each).allowed for each in waiting] == [False] * 3
    assert (await harness.asks()).allowed is True


@in_virtual_time
async def test_a_crashed_call_falls_back_on_what_is_remembered() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(100)
    harness.backend.says(crash)
    assert (await harness.asks()).allowed is True


@in_virtual_time
async def test_who_joined_an_old_call_and_was_let_down_has_a_question_of_his_own() -> None:
    harness = Harness()
    harness.backend.says(after(2.0, broken()))
    first = harness.soon()
    await harness.passes(1.0)
    late = harness.soon()
    assert (await first).allowed is False
    answer = await late
    assert (answer.allowed, answer.source) == (True, Source.BACKEND)
    assert len(harness.backend.calls) == 2


@in_virtual_time
async def test_who_was_let_down_twice_is_refused_within_his_deadline() -> None:
    harness = Harness()
    harness.backend.always(HANG)
    first = harness.soon()
    await harness.passes(1.0)
    begun = now()
    assert (await harness.asks()).allowed is False
    assert now() - begun < 4.0
    assert (await first).allowed is False


@in_virtual_time
async def test_a_newcomer_is_not_let_down_by_how_little_time_the_leader_of_his_call_had_left() -> None:
    harness = Harness()
    harness.backend.always(after(1.0, allow()))
    early = harness.query(DECISION, roomName="standup", userJid="alice@example.com/phone")
    await harness.passes(3.7)  # its body took so long to arrive
    leader = asyncio.ensure_future(harness.resolver.resolve(early))
    await settled()
    assert (await harness.asks()).allowed is True
    assert (await leader).allowed is False


@in_virtual_time
async def test_callers_without_time_left_do_not_open_the_breaker() -> None:
    harness = Harness()
    harness.backend.always(after(0.4, allow()))
    for number in range(30):
        query = harness.query(DECISION, roomName=f"room-{number}", userJid="alice@example.com")
        await harness.passes(3.8)
        await harness.resolver.resolve(query)
    assert harness.changes() == []


@in_virtual_time
async def test_a_call_that_ended_this_very_moment_is_not_joined_in_a_circle() -> None:
    harness = Harness()
    answers = await asyncio.gather(*(harness.asks() for _ in range(3)))
    assert all(answer.allowed for answer in answers)
