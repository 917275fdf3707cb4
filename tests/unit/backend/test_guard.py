"""One endpoint's way to the backend: breaker, places and retries together, without a gateway."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.backend.guard import Carried, Released
from sidecar.core.breaker import BreakerRules, Permit
from sidecar.core.model import Replied, Unavailable
from tests.unit.harness import DECISION, HANG, REFUSED, RESET, Stage, after, allow, broken, crash, settled
from tests.unit.virtual import in_virtual_time


async def carry(
    stage: Stage, room: str = "standup", seconds: float = 4.0, *, behind: bool = False
) -> Carried | Released:
    query = stage.query(DECISION, roomName=room, userJid="alice@example.com")
    return await stage.lanes[DECISION].carry(query, stage.clock.monotonic() + seconds, None, behind=behind)


def soon(stage: Stage, room: str) -> asyncio.Task[Carried | Released]:
    return asyncio.ensure_future(carry(stage, room))


def outcome(landed: Carried | Released) -> object:
    assert isinstance(landed, Carried)
    return landed.outcome


@in_virtual_time
async def test_a_question_is_sent_with_the_time_it_has_left() -> None:
    stage = Stage()
    assert isinstance(outcome(await carry(stage, seconds=3.0)), Replied)
    assert stage.backend.calls[0].seconds == pytest.approx(3.0, abs=0.01)


@in_virtual_time
async def test_what_was_asked_is_as_old_as_the_sending_and_not_as_the_waiting() -> None:
    stage = Stage(max_in_flight=2)
    stage.backend.always(after(1, allow()))
    first, second = soon(stage, "a"), soon(stage, "a")
    one, two = await first, await second
    assert isinstance(one, Carried)
    assert isinstance(two, Carried)
    assert two.asked_at - one.asked_at == pytest.approx(1, abs=0.01)


@in_virtual_time
async def test_waiting_for_a_place_does_not_count_as_slow() -> None:
    stage = Stage(max_in_flight=2, breaker=BreakerRules(minimum_calls=1, minimum_rooms=1))
    stage.backend.always(after(1.5, allow()))
    tasks = [soon(stage, "a") for _ in range(2)]
    assert [type(outcome(landed)) for landed in await asyncio.gather(*tasks)] == [Replied, Replied]
    assert stage.moves() == []


@in_virtual_time
async def test_who_gets_no_place_in_time_is_no_failure_of_the_backend() -> None:
    stage = Stage(max_in_flight=2, breaker=BreakerRules(slow_after=60, minimum_calls=2, minimum_rooms=1))
    stage.backend.always(HANG)
    holder = soon(stage, "a")
    await settled()
    for _ in range(5):
        landed = await carry(stage, "a", 0.5)
        assert isinstance(outcome(landed), Unavailable)
    assert len(stage.backend.calls) == 1
    assert stage.moves() == []
    holder.cancel()


@in_virtual_time
async def test_a_retry_counts_once_for_the_breaker() -> None:
    stage = Stage(breaker=BreakerRules(minimum_calls=4, minimum_rooms=1))
    stage.backend.always(RESET)
    for _ in range(3):
        await carry(stage)
    assert len(stage.backend.calls) == 6
    assert stage.moves() == []
    await carry(stage)
    assert stage.moves() == ["open"]


@in_virtual_time
async def test_a_failure_that_a_retry_mends_is_none() -> None:
    stage = Stage(breaker=BreakerRules(minimum_calls=2, minimum_rooms=1))
    for _ in range(4):
        stage.backend.says(REFUSED, allow())
        assert isinstance(outcome(await carry(stage)), Replied)
    assert stage.moves() == []


@in_virtual_time
async def test_a_call_is_a_failure_from_the_moment_it_is_slow_and_counts_once() -> None:
    stage = Stage(breaker=BreakerRules(minimum_calls=3, minimum_rooms=1, slow_after=1.0))
    stage.backend.always(after(2, broken()))
    tasks = [soon(stage, f"room-{n}") for n in range(2)]
    await asyncio.gather(*tasks)
    assert stage.moves() == []  # two calls, each slow and then failed, are two failures
    stage.backend.always(broken())
    await carry(stage)
    assert stage.moves() == ["open"]


@in_virtual_time
async def test_when_the_breaker_opens_those_who_wait_are_released_unasked() -> None:
    stage = Stage(max_in_flight=4, breaker=BreakerRules(minimum_calls=4, slow_after=1.0))
    stage.backend.always(HANG)
    tasks = [soon(stage, f"room-{n}") for n in range(10)]
    await asyncio.sleep(1.01)
    assert [isinstance(task.result(), Released) for task in tasks[4:]] == [True] * 6
    assert len(stage.backend.calls) == 4
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_a_place_that_comes_free_after_the_breaker_opened_is_not_used() -> None:
    stage = Stage(breaker=BreakerRules(minimum_calls=1, minimum_rooms=1))
    stage.backend.always(broken())
    await carry(stage)
    assert isinstance(await carry(stage), Released)
    assert len(stage.backend.calls) == 1
    assert stage.lanes[DECISION].slots.held == 0


@in_virtual_time
async def test_the_probe_needs_no_place() -> None:
    stage = Stage(max_in_flight=1, breaker=BreakerRules(minimum_calls=1, minimum_rooms=1, slow_after=0.5, open_for=1))
    stage.backend.always(HANG)
    holder = soon(stage, "a")
    await asyncio.sleep(1.9)
    stage.backend.well()
    lane, now = stage.lanes[DECISION], stage.clock.monotonic()
    assert lane.permit(now, "b") is Permit.PROBE_FREE
    query = stage.query(DECISION, roomName="b", userJid="alice@example.com")
    landed = await lane.carry(query, now + 4, lane.take_probe(now, "b"))
    assert isinstance(outcome(landed), Replied)
    assert stage.moves() == ["open", "closed"]
    await holder


@in_virtual_time
async def test_a_call_that_crashes_or_is_cancelled_gives_its_place_and_its_probe_back() -> None:
    stage = Stage(breaker=BreakerRules(minimum_calls=1, minimum_rooms=1))
    stage.backend.says(crash)
    with pytest.raises(LookupError):
        await carry(stage)
    assert (stage.lanes[DECISION].slots.held, stage.moves()) == (0, [])
    stage.backend.always(broken())
    await carry(stage)
    await asyncio.sleep(3.7)
    lane = stage.lanes[DECISION]
    stage.backend.always(HANG)
    query = stage.query(DECISION, roomName="b", userJid="alice@example.com")
    ticket = lane.take_probe(stage.clock.monotonic(), "b")
    probe = asyncio.ensure_future(lane.carry(query, stage.clock.monotonic() + 4, ticket))
    await settled()
    assert lane.permit(stage.clock.monotonic(), "c") is Permit.PROBE_OUT
    probe.cancel()
    await settled()
    assert lane.permit(stage.clock.monotonic(), "c") is Permit.PROBE_FREE


@in_virtual_time
async def test_a_refresh_takes_a_spare_place_or_none() -> None:
    stage = Stage(max_in_flight=4)
    stage.backend.always(after(1, allow()))
    tasks = [soon(stage, "a"), soon(stage, "b")]
    await settled()
    landed = await carry(stage, "c", behind=True)
    assert isinstance(outcome(landed), Unavailable)
    assert len(stage.backend.calls) == 2
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_more_places_after_a_reload_serve_those_who_wait() -> None:
    stage = Stage(max_in_flight=2)
    stage.backend.always(after(1, allow()))
    tasks = [soon(stage, "a") for _ in range(4)]
    await settled()
    assert len(stage.backend.calls) == 1
    stage.lanes[DECISION].configure(BreakerRules(), 8)
    await settled()
    assert len(stage.backend.calls) == 4
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_every_call_is_reported_with_what_came_of_it() -> None:
    stage = Stage()
    stage.backend.says(allow(), broken(503), RESET, REFUSED)
    for _ in range(3):
        await carry(stage)
    assert [(fact.outcome, fact.status, fact.retry) for fact in stage.asked()] == [
        ("replied", 200, False),
        ("unavailable", 503, False),
        ("unavailable", None, False),
        ("unavailable", None, True),
    ]
