"""The places for calls under way: how many there are, which room gets one, and which waits."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from sidecar.backend.bulkhead import Bulkhead, Grant
from sidecar.core.concurrency import Limit
from tests.unit.harness import settled
from tests.unit.test_cost import counted
from tests.unit.virtual import VirtualClock, in_virtual_time

DECISION = "validate-access"


def a_bulkhead(places: int) -> Bulkhead:
    """With so many places, as nothing is told to its limit."""
    return Bulkhead(Limit(places), VirtualClock())


async def take(bulkhead: Bulkhead, room: str, count: int, seconds: float = 10.0) -> list[asyncio.Task[Grant]]:
    tasks = [asyncio.ensure_future(bulkhead.take(room, seconds, DECISION)) for _ in range(count)]
    await settled()
    return tasks


def granted(tasks: list[asyncio.Task[Grant]]) -> int:
    return sum(task.done() and not task.cancelled() and task.result() is Grant.GRANTED for task in tasks)


async def leave(*tasks: asyncio.Task[Grant]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@in_virtual_time
async def test_one_room_gets_half_of_the_places() -> None:
    bulkhead = a_bulkhead(8)
    tasks = await take(bulkhead, "a", 20)
    assert (granted(tasks), bulkhead.held, bulkhead.waiting) == (4, 4, 16)
    await leave(*tasks)


@in_virtual_time
async def test_other_rooms_get_the_rest_at_once() -> None:
    bulkhead = a_bulkhead(8)
    greedy = await take(bulkhead, "a", 20)
    others = [(await take(bulkhead, room, 1))[0] for room in "bcde"]
    assert granted(others) == 4
    assert bulkhead.held == 8
    await leave(*greedy)


@in_virtual_time
async def test_a_room_whose_calls_are_answered_may_hold_more_but_never_all() -> None:
    bulkhead = a_bulkhead(8)
    tasks = await take(bulkhead, "a", 40)
    for _ in range(20):
        bulkhead.give_back("a", answered=True)
        await settled()
        assert bulkhead.held <= 7
    assert bulkhead.held == 7
    await leave(*tasks)


@in_virtual_time
async def test_a_room_whose_call_fails_is_back_to_its_half() -> None:
    bulkhead = a_bulkhead(8)
    tasks = await take(bulkhead, "a", 40)
    for _ in range(10):
        bulkhead.give_back("a", answered=True)
        await settled()
    assert bulkhead.held == 7
    for _ in range(4):
        bulkhead.give_back("a", answered=False)
        await settled()
    assert bulkhead.held == 4
    await leave(*tasks)


@in_virtual_time
async def test_free_places_go_to_the_waiting_rooms_in_turn() -> None:
    bulkhead = a_bulkhead(8)
    full = [*(await take(bulkhead, "x", 4)), *(await take(bulkhead, "y", 4))]
    assert granted(full) == 8
    many = await take(bulkhead, "a", 50)
    few = [(await take(bulkhead, room, 1))[0] for room in "bcd"]
    for _ in range(4):
        bulkhead.give_back("x", answered=True)
        await settled()
    assert (granted(many), granted(few)) == (1, 3)
    await leave(*many)


@in_virtual_time
async def test_within_a_room_the_first_is_served_first() -> None:
    bulkhead = a_bulkhead(2)
    await take(bulkhead, "a", 1)
    order: list[int] = []

    async def one(number: int) -> None:
        await bulkhead.take("a", 10)
        order.append(number)
        bulkhead.give_back("a", answered=False)

    waiting = [asyncio.ensure_future(one(number)) for number in range(5)]
    await settled()
    bulkhead.give_back("a", answered=False)
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]


@in_virtual_time
async def test_the_config_for_which_all_joins_of_a_room_wait_comes_before_their_decisions() -> None:
    bulkhead = a_bulkhead(2)
    await take(bulkhead, "a", 1)
    decisions = await take(bulkhead, "a", 3)
    config = asyncio.ensure_future(bulkhead.take("a", 10.0, "room-created"))
    await settled()
    bulkhead.give_back("a", answered=False)
    await settled()
    assert (config.done(), granted(decisions)) == (True, 0)
    await leave(*decisions)


@in_virtual_time
async def test_a_wait_that_takes_too_long_ends_as_busy_and_leaves_no_trace() -> None:
    bulkhead = a_bulkhead(2)
    await take(bulkhead, "a", 1)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await bulkhead.take("a", 1.5) is Grant.BUSY
    assert loop.time() - begun == pytest.approx(1.5)
    assert (bulkhead.held, bulkhead.waiting) == (1, 0)


@pytest.mark.parametrize("seconds", [0.0, -5.0])
def test_without_time_to_wait_a_free_place_is_still_given_and_none_is_waited_for(seconds: float) -> None:
    @in_virtual_time
    async def run() -> None:
        bulkhead = a_bulkhead(2)
        assert await bulkhead.take("a", seconds) is Grant.GRANTED
        assert await bulkhead.take("a", seconds) is Grant.BUSY

    run()


@in_virtual_time
async def test_a_cancelled_wait_takes_no_place() -> None:
    bulkhead = a_bulkhead(2)
    await take(bulkhead, "a", 1)
    (waiting,) = await take(bulkhead, "a", 1)
    await leave(waiting)
    bulkhead.give_back("a", answered=True)
    assert (bulkhead.held, bulkhead.waiting) == (0, 0)


@in_virtual_time
async def test_a_wait_that_is_cancelled_as_it_is_granted_gives_the_place_to_the_next() -> None:
    bulkhead = a_bulkhead(2)
    await take(bulkhead, "a", 1)
    first, second = await take(bulkhead, "a", 2)
    bulkhead.give_back("a", answered=False)  # serves the first ...
    first.cancel()  # ... who has not noticed yet
    await settled()
    assert granted([second]) == 1
    assert bulkhead.held == 1


@in_virtual_time
async def test_those_who_are_released_leave_without_a_place() -> None:
    bulkhead = a_bulkhead(2)
    await take(bulkhead, "a", 1)
    waiting = [*(await take(bulkhead, "a", 3)), *(await take(bulkhead, "b", 1))]
    assert granted(waiting) == 1
    bulkhead.release_waiting(DECISION)
    await settled()
    assert [task.result() for task in waiting[:3]] == [Grant.RELEASED] * 3
    assert (bulkhead.held, bulkhead.waiting) == (2, 0)


@in_virtual_time
async def test_a_wait_that_has_ended_takes_nothing_from_later_calls_of_its_room() -> None:
    bulkhead = a_bulkhead(1)
    await bulkhead.take("a", 10.0, DECISION)
    waiting = await take(bulkhead, "a", 1)
    bulkhead.release_waiting(DECISION)
    for _ in range(2):  # before the one who was released is resumed
        bulkhead.give_back("a", answered=True)
        assert await bulkhead.take("a", 10.0, DECISION) is Grant.GRANTED
    await settled()
    assert waiting[0].result() is Grant.RELEASED
    bulkhead.give_back("a", answered=True)
    assert bulkhead.held == 0


@in_virtual_time
async def test_a_spare_place_is_given_only_while_most_are_free() -> None:
    bulkhead = a_bulkhead(8)
    assert bulkhead.take_spare("a") is Grant.GRANTED
    assert bulkhead.take_spare("a") is Grant.GRANTED
    assert bulkhead.take_spare("a") is Grant.BUSY
    assert bulkhead.take_spare("b") is Grant.GRANTED
    assert bulkhead.take_spare("c") is Grant.GRANTED
    assert bulkhead.take_spare("d") is Grant.BUSY
    assert await bulkhead.take("d", 0) is Grant.GRANTED


@in_virtual_time
async def test_no_spare_place_is_given_while_somebody_waits() -> None:
    bulkhead = a_bulkhead(8)
    tasks = await take(bulkhead, "a", 5)
    for _ in range(4):
        bulkhead.give_back("a", answered=False)
        await settled()
    assert granted(tasks) == 5
    waiting = await take(bulkhead, "a", 4)
    assert bulkhead.waiting == 1
    assert bulkhead.take_spare("b") is Grant.BUSY
    await leave(*waiting)


@in_virtual_time
async def test_one_place_is_one_place() -> None:
    bulkhead = a_bulkhead(1)
    assert await bulkhead.take("a", 0) is Grant.GRANTED
    (waiting,) = await take(bulkhead, "b", 1)
    assert not waiting.done()
    bulkhead.give_back("a", answered=True)
    assert await waiting is Grant.GRANTED
    bulkhead.give_back("b", answered=True)
    assert bulkhead.held == 0


@in_virtual_time
async def test_more_places_are_given_to_those_who_wait_as_soon_as_there_are_more() -> None:
    bulkhead = a_bulkhead(2)
    tasks = await take(bulkhead, "a", 4)
    assert granted(tasks) == 1
    bulkhead.configure(8)
    await settled()
    assert granted(tasks) == 4


@in_virtual_time
async def test_after_any_sequence_of_calls_all_places_are_free_again() -> None:
    bulkhead = a_bulkhead(6)
    numbers = iter(range(10**6))

    async def one(room: str, patience: float, work: float, hangs_up: bool) -> None:
        task = asyncio.ensure_future(bulkhead.take(room, patience))
        if hangs_up:
            await asyncio.sleep(patience / 2)
            if not task.done():
                task.cancel()
        try:
            grant = await task
        except asyncio.CancelledError:
            return
        assert bulkhead.held <= 6
        if grant is Grant.GRANTED:
            await asyncio.sleep(work)
            bulkhead.give_back(room, answered=next(numbers) % 3 > 0)

    await asyncio.gather(
        *(one(f"room-{n % 7}", n % 5 * 0.3, n % 4 * 0.1, n % 6 == 0) for n in range(300)),
    )
    assert (bulkhead.held, bulkhead.waiting) == (0, 0)
    assert await bulkhead.take("after", 0) is Grant.GRANTED


@in_virtual_time
async def test_giving_back_a_place_takes_as_long_with_ten_thousand_rooms_waiting_as_with_ten() -> None:
    steps = []
    for rooms in (10, 10_000):
        bulkhead = a_bulkhead(2)
        await take(bulkhead, "a", 1)
        await take(bulkhead, "b", 1)
        waiting = [asyncio.ensure_future(bulkhead.take(f"room-{number}", 10.0)) for number in range(rooms)]
        await settled()
        steps.append(counted(partial(bulkhead.give_back, "a", answered=True))[0])
        bulkhead.release_waiting("")
        await asyncio.gather(*waiting)
    assert steps[1] <= steps[0] + 20


@in_virtual_time
async def test_a_room_that_holds_all_it_may_have_returns_to_the_line_when_it_gives_one_back() -> None:
    bulkhead = a_bulkhead(8)
    mine = await take(bulkhead, "a", 6)
    assert granted(mine) == 4
    bulkhead.give_back("a", answered=False)
    await settled()
    assert granted(mine) == 5


@in_virtual_time
async def test_the_breaker_of_one_endpoint_releases_only_those_who_wait_for_it() -> None:
    bulkhead = a_bulkhead(1)
    await take(bulkhead, "a", 1)
    decision = (await take(bulkhead, "a", 1))[0]
    config = asyncio.ensure_future(bulkhead.take("a", 10.0, "room-created"))
    await settled()
    bulkhead.release_waiting(DECISION)
    await settled()
    assert decision.result() is Grant.RELEASED
    assert not config.done()
    bulkhead.give_back("a", answered=True)
    assert await config is Grant.GRANTED


@in_virtual_time
async def test_an_event_gets_a_place_while_no_join_waits() -> None:
    bulkhead = a_bulkhead(4)
    for _ in range(2):
        await bulkhead.take_for_event()
    third = asyncio.ensure_future(bulkhead.take_for_event())
    await settled()
    assert (bulkhead.held, third.done()) == (2, False)  # half of the places stay for joins
    bulkhead.give_back_event()
    await third
    bulkhead.give_back_event()
    bulkhead.give_back_event()
    assert bulkhead.held == 0


@in_virtual_time
async def test_while_joins_wait_events_hold_no_more_than_their_share_but_that_they_get() -> None:
    bulkhead = a_bulkhead(32)
    joins = [(await take(bulkhead, f"room-{number}", 1))[0] for number in range(40)]
    events = [asyncio.ensure_future(bulkhead.take_for_event()) for _ in range(5)]
    await settled()
    assert sum(event.done() for event in events) == 0
    for number in range(6):
        bulkhead.give_back(f"room-{number}", answered=True)
    await settled()
    assert (sum(event.done() for event in events), granted(joins)) == (2, 36)
    for event in events:
        event.cancel()
    await asyncio.gather(*events, return_exceptions=True)
    assert bulkhead.held == 32


@in_virtual_time
async def test_an_event_that_is_cancelled_as_it_gets_its_place_gives_it_back() -> None:
    bulkhead = a_bulkhead(2)
    await bulkhead.take_for_event()
    waiting = asyncio.ensure_future(bulkhead.take_for_event())
    await settled()
    bulkhead.give_back_event()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert bulkhead.held == 0
