"""One room whose events are never taken and one that hangs delay the events of a hundred others by nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from tests.rig.answers import Request, hang, reply
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

ROOMS = 100
EVENTS = 5
AT_ONCE = 16


async def lags(backend: Backend, ill: Iterable[str]) -> list[float]:
    """Seconds from the acknowledgement of each event of a hundred rooms to its delivery, sorted."""
    acknowledged: dict[tuple[str, int], float] = {}

    def arrived() -> dict[tuple[str, int], Request]:
        return {(each.room, each.body["number"]): each for each in reversed(backend.events())}

    backend.forget()
    async with Sidecar.prepared(backend.url, {"outbox": {"backoff_cap": 0.2}}, on_disk=True) as sidecar:
        await sidecar.run()
        places = asyncio.Semaphore(AT_ONCE)

        async def tell(room: str, number: int) -> None:
            async with places:
                assert (await sidecar.event("user-joined", room, number=number)).status == 202
                acknowledged[room, number] = time.monotonic()

        for room in ill:
            for number in range(EVENTS):
                await tell(room, number)
        await asyncio.sleep(0.5)
        for number in range(EVENTS):
            await asyncio.gather(*(tell(f"room-{index}", number) for index in range(ROOMS)))
        async with asyncio.timeout(20.0):
            while len(arrived()) < ROOMS * EVENTS:
                await asyncio.sleep(0.01)
        return sorted(max(0.0, each.at - acknowledged[event]) for event, each in arrived().items())


async def test_one_poisoned_and_one_hanging_room_delay_no_others(backend: Backend) -> None:
    backend.on("user-joined", reply({}, status=500), room="poisoned")
    backend.on("user-joined", hang, room="hanging")
    well = await lags(backend, [])
    ill = await lags(backend, ["poisoned", "hanging"])
    p99 = len(well) * 99 // 100
    print(f"\n{len(well)} events, p99 {well[p99] * 1000:.0f} ms; beside the ill rooms {ill[p99] * 1000:.0f} ms")
    assert ill[p99] < well[p99] + 0.5
    assert backend.events("poisoned") == backend.events("hanging") == []
