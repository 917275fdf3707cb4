"""One call per key: who waits for it, who may leave, and what happens when it crashes."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.decisions.single_flight import PENDING, Call, CallCancelled, SingleFlight
from tests.unit.harness import settled
from tests.unit.virtual import in_virtual_time


class Observed:
    """SingleFlight, and the crashes that were reported."""

    def __init__(self) -> None:
        self.crashes: list[BaseException] = []
        self.calls: SingleFlight[str, int] = SingleFlight(self.crashes.append)

    def start(self, key: str = "k", seconds: float = 1.0, fails: Exception | None = None, value: int = 7) -> Call[int]:
        async def call() -> int:
            await asyncio.sleep(seconds)
            if fails is not None:
                raise fails
            return value

        return self.calls.start(key, asyncio.get_running_loop().time(), call())


@in_virtual_time
async def test_everybody_who_waits_gets_the_same_result() -> None:
    observed = Observed()
    call = observed.start()
    assert observed.calls.get("k") is call
    assert await asyncio.gather(*(call.within(5) for _ in range(3))) == [7, 7, 7]
    assert observed.calls.get("k") is None
    assert len(observed.calls) == 0


@in_virtual_time
async def test_who_has_waited_long_enough_goes_and_the_call_goes_on() -> None:
    observed = Observed()
    call = observed.start(seconds=1)
    assert await call.within(0.5) is PENDING
    assert await call.within(0) is PENDING
    assert await call.within(-1) is PENDING
    assert await call.within(5) == 7


@in_virtual_time
async def test_who_hangs_up_takes_nothing_from_the_others() -> None:
    observed = Observed()
    call = observed.start()
    leaver, stayer = asyncio.ensure_future(call.within(5)), asyncio.ensure_future(call.within(5))
    await settled()
    leaver.cancel()
    assert await stayer == 7


@in_virtual_time
async def test_a_crash_reaches_all_who_wait_and_is_reported_once() -> None:
    observed = Observed()
    call = observed.start(fails=LookupError("a defect"))
    results = await asyncio.gather(*(call.within(5) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 3
    assert [str(crash) for crash in observed.crashes] == ["a defect"]


@in_virtual_time
async def test_a_crash_nobody_waited_for_is_reported_too() -> None:
    observed = Observed()
    observed.start(fails=LookupError("a defect"))
    await asyncio.sleep(2)
    assert len(observed.crashes) == 1


@in_virtual_time
async def test_a_cancelled_call_cancels_nobody_who_waits() -> None:
    observed = Observed()
    call = observed.start()
    waiter = asyncio.ensure_future(call.within(5))
    await settled()
    call.task.cancel()
    with pytest.raises(CallCancelled):
        await waiter
    assert observed.crashes == []


@in_virtual_time
async def test_a_second_call_of_a_key_does_not_end_with_the_first() -> None:
    observed = Observed()
    first, second = observed.start(seconds=1, value=1), observed.start(seconds=2, value=2)
    assert observed.calls.get("k") is second
    assert await first.within(5) == 1
    await settled()
    assert observed.calls.get("k") is second
    assert await second.within(5) == 2


@in_virtual_time
async def test_a_call_that_has_ended_is_not_joined_even_before_its_end_was_noted() -> None:
    observed = Observed()
    call = observed.start(seconds=0)
    seen: list[bool] = []
    call.task.add_done_callback(lambda _: None)
    loop = asyncio.get_running_loop()

    def look() -> None:
        if call.task.done():
            seen.append(observed.calls.get("k") is None)
        else:
            loop.call_soon(look)

    loop.call_soon(look)
    await call.within(5)
    await settled()
    assert seen == [True]


@in_virtual_time
async def test_detached_flights_are_joined_by_nobody_and_still_land() -> None:
    observed = Observed()
    meant, other = observed.start("a"), observed.start("b", seconds=2)
    observed.calls.detach(lambda key: key == "a")
    assert observed.calls.get("a") is None
    assert observed.calls.get("b") is other
    assert await meant.within(5) == 7
    assert len(observed.calls) == 1


@in_virtual_time
async def test_draining_lets_land_what_lands_in_time_and_cancels_the_rest() -> None:
    observed = Observed()
    quick, slow = observed.start("a", seconds=1), observed.start("b", seconds=100)
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await observed.calls.drain(2)
    assert loop.time() - begun == pytest.approx(2)
    assert quick.task.result() == 7
    assert slow.task.cancelled()
    await observed.calls.drain(2)
    assert loop.time() - begun == pytest.approx(2)
