"""A wall clock that somebody sets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.rig.answers import reply, taken
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar
from tests.rig.wall_clock import WallClock

DAY = 86_400


@pytest.mark.parametrize("days", [8, -8])
async def test_events_that_wait_while_the_clock_is_wrong_are_delivered(tmp_path: Path, days: int) -> None:
    clock = WallClock(tmp_path)
    settings = {"outbox": {"backoff_cap": 0.5}}
    async with (
        Backend() as backend,
        Sidecar.prepared(backend.url, settings, clock.environ, on_disk=True) as sidecar,
    ):
        backend.on("user-joined", reply({}, status=503))
        await sidecar.run()
        for number in range(5):
            assert (await sidecar.event("user-joined", f"room-{number}", n=number)).status == 202
        clock.set_ahead(days * DAY)
        await tried_again(backend)
        accepted = (await sidecar.get("/status")).document["outbox"]
        assert accepted["parked"] == 0, accepted
        await sidecar.kill()
        await sidecar.run()
        await tried_again(backend)
        clock.set_ahead(0)
        await tried_again(backend)
        assert await sidecar.metric("outbox_oldest_seconds") < 60
        backend.on("user-joined", taken())
        async with asyncio.timeout(30.0):
            while await sidecar.metric("outbox_pending"):
                await asyncio.sleep(0.05)
        assert await sidecar.metric("outbox_parked") == 0
        assert {event.body["n"] for event in backend.events()} == set(range(5))
        await sidecar.end()


async def tried_again(backend: Backend) -> None:
    """Wait until the backend has refused a few more."""
    before = len(backend.requests)
    async with asyncio.timeout(30.0):
        while len(backend.requests) < before + 4:
            await asyncio.sleep(0.05)
