"""One question at a time per key, and nobody stranded."""

from __future__ import annotations

import asyncio

from sidecar.core.model import Source
from sidecar.web import cache_status
from tests.unit.harness import (
    DECISION,
    HANG,
    Stage,
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
    stage = Stage()
    stage.backend.always(after(0.3, allow()))
    answers = await asyncio.gather(*(stage.asks() for _ in range(100)))
    assert all(answer.allowed for answer in answers)
    assert len(stage.backend.calls) == 1
    assert sum(answer.collapsed for answer in answers) == 99
    assert cache_status(answers[1]) == "prosody-sidecar; fwd=miss; stored; collapsed"


@in_virtual_time
async def test_a_leader_that_hangs_up_strands_nobody_and_costs_no_second_call() -> None:
    stage = Stage()
    stage.backend.always(after(0.3, allow()))
    leader, follower = stage.soon(), stage.soon()
    await settled()
    leader.cancel()
    assert (await follower).allowed is True
    assert len(stage.backend.calls) == 1


@in_virtual_time
async def test_a_flight_all_of_whose_callers_hang_up_is_remembered() -> None:
    stage = Stage()
    stage.backend.always(after(0.3, allow()))
    leader = stage.soon()
    await settled()
    leader.cancel()
    await stage.passes(0.5)
    assert (await stage.asks()).source is Source.HIT


@in_virtual_time
async def test_a_flight_that_crashes_is_reported_and_answers_everybody_by_policy() -> None:
    stage = Stage()
    stage.backend.says(crash)
    answers = await asyncio.gather(*(stage.asks() for _ in range(5)))
    assert [answer.allowed for answer in answers] == [False] * 5
    assert [str(error) for error in stage.crashes()] == ["a defect"]
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_a_flight_that_is_cancelled_answers_everybody_by_policy() -> None:
    stage = Stage()
    stage.backend.says(HANG)
    waiting = [stage.soon() for _ in range(3)]
    await settled()
    await stage.gateway.drain(0)
    assert [(await each).allowed for each in waiting] == [False] * 3
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_a_crashed_flight_falls_back_on_what_is_remembered() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(crash)
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_who_joined_an_old_flight_and_was_let_down_has_a_question_of_his_own() -> None:
    stage = Stage()
    stage.backend.says(after(2.0, broken()))
    first = stage.soon()
    await stage.passes(1.0)
    late = stage.soon()
    assert (await first).allowed is False
    answer = await late
    assert (answer.allowed, answer.source) == (True, Source.BACKEND)
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_who_was_let_down_twice_is_refused_within_his_deadline() -> None:
    stage = Stage()
    stage.backend.always(HANG)
    first = stage.soon()
    await stage.passes(1.0)
    begun = now()
    assert (await stage.asks()).allowed is False
    assert now() - begun < 4.0
    assert (await first).allowed is False


@in_virtual_time
async def test_a_newcomer_is_not_let_down_by_how_little_time_the_leader_of_his_flight_had_left() -> None:
    stage = Stage()
    stage.backend.always(after(1.0, allow()))
    early = stage.query(DECISION, roomName="standup", userJid="alice@example.com/phone")
    await stage.passes(3.7)  # its body took so long to arrive
    leader = asyncio.ensure_future(stage.gateway.resolve(early))
    await settled()
    assert (await stage.asks()).allowed is True
    assert (await leader).allowed is False


@in_virtual_time
async def test_callers_without_time_left_do_not_open_the_breaker() -> None:
    stage = Stage()
    stage.backend.always(after(0.4, allow()))
    for number in range(30):
        query = stage.query(DECISION, roomName=f"room-{number}", userJid="alice@example.com")
        await stage.passes(3.8)
        await stage.gateway.resolve(query)
    assert stage.moves() == []


@in_virtual_time
async def test_a_flight_that_ended_this_very_moment_is_not_joined_in_a_circle() -> None:
    stage = Stage()
    answers = await asyncio.gather(*(stage.asks() for _ in range(3)))
    assert all(answer.allowed for answer in answers)
