"""One flight per key: who waits for it, who may leave, and what happens when it crashes."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.decisions.single_flight import PENDING, Flight, FlightLost, Flights
from tests.unit.harness import settled
from tests.unit.virtual import in_virtual_time


class Board:
    """Flights, and the crashes that were reported."""

    def __init__(self) -> None:
        self.crashes: list[BaseException] = []
        self.flights: Flights[str, int] = Flights(self.crashes.append)

    def start(
        self, key: str = "k", seconds: float = 1.0, fails: Exception | None = None, value: int = 7
    ) -> Flight[int]:
        async def call() -> int:
            await asyncio.sleep(seconds)
            if fails is not None:
                raise fails
            return value

        return self.flights.start(key, asyncio.get_running_loop().time(), call())


@in_virtual_time
async def test_everybody_who_waits_gets_the_same_result() -> None:
    board = Board()
    flight = board.start()
    assert board.flights.get("k") is flight
    assert await asyncio.gather(*(flight.within(5) for _ in range(3))) == [7, 7, 7]
    assert board.flights.get("k") is None
    assert len(board.flights) == 0


@in_virtual_time
async def test_who_has_waited_long_enough_goes_and_the_flight_goes_on() -> None:
    board = Board()
    flight = board.start(seconds=1)
    assert await flight.within(0.5) is PENDING
    assert await flight.within(0) is PENDING
    assert await flight.within(-1) is PENDING
    assert await flight.within(5) == 7


@in_virtual_time
async def test_who_hangs_up_takes_nothing_from_the_others() -> None:
    board = Board()
    flight = board.start()
    leaver, stayer = asyncio.ensure_future(flight.within(5)), asyncio.ensure_future(flight.within(5))
    await settled()
    leaver.cancel()
    assert await stayer == 7


@in_virtual_time
async def test_a_crash_reaches_all_who_wait_and_is_reported_once() -> None:
    board = Board()
    flight = board.start(fails=LookupError("a defect"))
    results = await asyncio.gather(*(flight.within(5) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 3
    assert [str(crash) for crash in board.crashes] == ["a defect"]


@in_virtual_time
async def test_a_crash_nobody_waited_for_is_reported_too() -> None:
    board = Board()
    board.start(fails=LookupError("a defect"))
    await asyncio.sleep(2)
    assert len(board.crashes) == 1


@in_virtual_time
async def test_a_cancelled_flight_cancels_nobody_who_waits() -> None:
    board = Board()
    flight = board.start()
    waiter = asyncio.ensure_future(flight.within(5))
    await settled()
    flight.task.cancel()
    with pytest.raises(FlightLost):
        await waiter
    assert board.crashes == []


@in_virtual_time
async def test_a_second_flight_of_a_key_does_not_end_with_the_first() -> None:
    board = Board()
    first, second = board.start(seconds=1, value=1), board.start(seconds=2, value=2)
    assert board.flights.get("k") is second
    assert await first.within(5) == 1
    await settled()
    assert board.flights.get("k") is second
    assert await second.within(5) == 2


@in_virtual_time
async def test_a_flight_that_has_ended_is_not_joined_even_before_its_end_was_noted() -> None:
    board = Board()
    flight = board.start(seconds=0)
    seen: list[bool] = []
    flight.task.add_done_callback(lambda _: None)
    loop = asyncio.get_running_loop()

    def look() -> None:
        if flight.task.done():
            seen.append(board.flights.get("k") is None)
        else:
            loop.call_soon(look)

    loop.call_soon(look)
    await flight.within(5)
    await settled()
    assert seen == [True]


@in_virtual_time
async def test_detached_flights_are_joined_by_nobody_and_still_land() -> None:
    board = Board()
    meant, other = board.start("a"), board.start("b", seconds=2)
    board.flights.detach(lambda key: key == "a")
    assert board.flights.get("a") is None
    assert board.flights.get("b") is other
    assert await meant.within(5) == 7
    assert len(board.flights) == 1


@in_virtual_time
async def test_draining_lets_land_what_lands_in_time_and_cancels_the_rest() -> None:
    board = Board()
    quick, slow = board.start("a", seconds=1), board.start("b", seconds=100)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await board.flights.drain(2)
    assert loop.time() - begun == pytest.approx(2)
    assert quick.task.result() == 7
    assert slow.task.cancelled()
    await board.flights.drain(2)
    assert loop.time() - begun == pytest.approx(2)
