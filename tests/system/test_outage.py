"""The backend is gone and the sidecar is restarted: what it knew is answered from disk, for as long as it may be."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from tests.rig.answers import allow_if
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

KNOWN = 500
AT_ONCE = 8


def settings(**lifetimes: float) -> dict[str, Any]:
    """Allows and denies live equally long."""
    return {"endpoints": {"validate-access": {"allow": lifetimes, "deny": lifetimes, "on_unavailable": "deny"}}}


def let_in(body: dict[str, Any]) -> bool:
    """Every second user."""
    return int(body["userJid"].partition("@")[0].partition("-")[2]) % 2 == 0


async def ask_all(sidecar: Sidecar, many: int) -> list[tuple[bool | None, bool, float]]:
    """For each: what was answered, what is right, and after how many seconds."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> tuple[bool | None, bool, float]:
        async with places:
            user = f"user-{number}@example.com"
            reply = await sidecar.decides(f"room-{number % 50}", user)
            return reply.allowed, let_in({"userJid": user}), reply.seconds

    return list(await asyncio.gather(*(one(number) for number in range(many))))


async def on_disk() -> None:
    """Longer than the writer waits."""
    await asyncio.sleep(0.6)


async def test_after_a_crash_in_an_outage_all_that_was_known_is_answered_rightly() -> None:
    lifetimes = settings(fresh=15, stale_while_revalidate=15, stale_if_error=3600)
    async with (
        Backend({"validate-access": allow_if(let_in)}) as backend,
        Sidecar.prepared(backend.url, lifetimes, on_disk=True) as sidecar,
    ):
        await sidecar.run()
        assert all(said is right for said, right, _ in await ask_all(sidecar, KNOWN))
        await on_disk()
        await backend.stop()
        await sidecar.kill()
        await sidecar.run()
        answers = await ask_all(sidecar, KNOWN)
        assert [said for said, _, _ in answers] == [right for _, right, _ in answers]
        times = sorted(seconds for _, _, seconds in answers)
        print(f"\n{KNOWN} of {KNOWN} right; p50 {times[KNOWN // 2] * 1000:.1f} ms, p99 {times[-5] * 1000:.1f} ms")
        assert times[-5] < 0.5


async def test_after_stale_if_error_no_allow_is_answered_from_disk_any_more() -> None:
    lifetimes = settings(fresh=0, stale_while_revalidate=0, stale_if_error=3)
    async with (
        Backend({"validate-access": allow_if(let_in)}) as backend,
        Sidecar.prepared(backend.url, lifetimes, on_disk=True) as sidecar,
    ):
        await sidecar.run()
        assert all(said is right for said, right, _ in await ask_all(sidecar, 50))
        asked_by = time.monotonic()
        await on_disk()
        await backend.stop()
        await sidecar.kill()
        await asyncio.sleep(max(0.0, asked_by + 3.0 - time.monotonic()))
        await sidecar.run()
        assert not any(said for said, _, _ in await ask_all(sidecar, 50))
