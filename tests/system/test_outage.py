"""The backend is gone and the sidecar is restarted: what it knew is answered from disk, for as long as it may be."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.rig.ledger import Ledger, Sidecar, sidecar

KNOWN = 500
AT_ONCE = 8


def settings(**lifetimes: float) -> dict[str, Any]:
    """Allows and denies live equally long."""
    return {"endpoints": {"validate-access": {"allow": lifetimes, "deny": lifetimes, "on_unavailable": "deny"}}}


def let_in(body: dict[str, Any]) -> bool:
    """Every second user."""
    return int(body["userJid"].partition("@")[0].partition("-")[2]) % 2 == 0


async def ask_all(service: Sidecar, many: int) -> list[tuple[bool | None, bool, float]]:
    """For each: what was answered, what is right, and after how many seconds."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[bool | None, bool, float]:
        async with slots:
            user = f"user-{number}@example.com"
            answered = await service.join(f"room-{number % 50}", user)
            return answered.body.get("allowed"), let_in({"userJid": user}), answered.seconds

    return list(await asyncio.gather(*(one(number) for number in range(many))))


async def on_disk(service: Sidecar) -> None:
    """Longer than the writer waits."""
    await asyncio.sleep(0.6)


async def test_after_a_crash_in_an_outage_all_that_was_known_is_answered_rightly() -> None:
    ledger = Ledger(decide=let_in)
    async with sidecar(settings(fresh=15, stale_while_revalidate=15, stale_if_error=3600), ledger) as service:
        await service.start()
        assert all(said is right for said, right, _ in await ask_all(service, KNOWN))
        await on_disk(service)
        await ledger.close()
        await service.kill()
        await service.start()
        answers = await ask_all(service, KNOWN)
        assert [said for said, _, _ in answers] == [right for _, right, _ in answers]
        times = sorted(seconds for _, _, seconds in answers)
        print(f"\n{KNOWN} of {KNOWN} right; p50 {times[KNOWN // 2] * 1000:.1f} ms, p99 {times[-5] * 1000:.1f} ms")
        assert times[-5] < 0.5


async def test_after_stale_if_error_no_allow_is_answered_from_disk_any_more() -> None:
    ledger = Ledger(decide=let_in)
    async with sidecar(settings(fresh=0, stale_while_revalidate=0, stale_if_error=3), ledger) as service:
        await service.start()
        assert all(said is right for said, right, _ in await ask_all(service, 50))
        asked_by = time.monotonic()
        await on_disk(service)
        await ledger.close()
        await service.kill()
        await asyncio.sleep(max(0.0, asked_by + 3.0 - time.monotonic()))
        await service.start()
        assert not any(said for said, _, _ in await ask_all(service, 50))
