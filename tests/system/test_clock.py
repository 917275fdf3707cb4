"""A wall clock that somebody sets: libfaketime changes the time of day of the daemon and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.rig.answers import reply, taken
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

DAY = 86_400


class WallClock:
    """The time of day of a process."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set_ahead(0)

    def set_ahead(self, seconds: int) -> None:
        """By how much it is wrong."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)


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
