"""One room whose events are never taken and one that hangs delay the events of a hundred others by nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from tests.rig.ledger import Body, Ledger, sidecar

ROOMS = 100
EVENTS = 5
AT_ONCE = 16


async def lags(ill: Iterable[str]) -> tuple[list[float], Ledger]:
    """Seconds from the acknowledgement of each event of a hundred rooms to its delivery, sorted."""
    arrived: dict[tuple[str, int], float] = {}
    acknowledged: dict[tuple[str, int], float] = {}

    def refuse(body: Body) -> int | None:
        if body["roomName"] == "poisoned":
            return 500
        arrived.setdefault((body["roomName"], body["number"]), time.monotonic())
        return None

    ledger = Ledger(refuse=refuse, hanging={"hanging"})
    async with sidecar({"outbox": {"backoff_cap": 0.2}}, ledger) as service:
        await service.start()
        slots = asyncio.Semaphore(AT_ONCE)

        async def tell(room: str, number: int) -> None:
            async with slots:
                answered = await service.post("user-joined", {"roomName": room, "number": number})
                assert answered.status == 202
                acknowledged[room, number] = time.monotonic()

        for room in ill:
            for number in range(EVENTS):
                await tell(room, number)
        await asyncio.sleep(0.5)
        for number in range(EVENTS):
            await asyncio.gather(*(tell(f"room-{index}", number) for index in range(ROOMS)))
        async with asyncio.timeout(20.0):
            while len(arrived) < ROOMS * EVENTS:
                await asyncio.sleep(0.01)
        healthy = [told for told in acknowledged if told[0].startswith("room-")]
        return sorted(max(0.0, arrived[told] - acknowledged[told]) for told in healthy), ledger


async def test_one_poisoned_and_one_hanging_room_delay_no_others() -> None:
    well, _ = await lags([])
    ill, ledger = await lags(["poisoned", "hanging"])
    p99 = len(well) * 99 // 100
    print(f"\n{len(well)} events, p99 {well[p99] * 1000:.0f} ms; beside the ill rooms {ill[p99] * 1000:.0f} ms")
    assert ill[p99] < well[p99] + 0.5
    assert not ledger.first_arrivals("poisoned")
    assert not ledger.first_arrivals("hanging")
