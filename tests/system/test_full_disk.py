"""A volume that the outbox itself has filled comes back when the backend takes events again, and nobody helps."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.rig.answers import deny, reply, taken
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar
from tests.rig.smalldisk import MEBIBYTE, SmallDisk, small_disk

SETTINGS: dict[str, Any] = {"outbox": {"backoff_cap": 0.5}}
AWAY = reply({}, status=503)


class Volume:
    """A sidecar on a small disk that holds nothing else, and what it has acknowledged."""

    def __init__(self, sidecar: Sidecar, backend: Backend, disk: SmallDisk) -> None:
        self.sidecar, self.backend, self.disk = sidecar, backend, disk
        self.accepted: list[str] = []
        self._next = 0

    async def fill(self, size: int) -> None:
        """Events until thirty in a row are refused, each with 503 and a time to come back."""
        self.backend.on("user-joined", AWAY)
        refused = 0
        async with asyncio.timeout(120.0):
            while refused < 30:
                self._next += 1
                key = f"key-{self._next}"
                answered = await self.sidecar.event(
                    "user-joined", f"room-{self._next % 40}", key, n=self._next, filler="x" * size
                )
                if answered.status == 202:
                    self.accepted.append(key)
                    refused = 0
                else:
                    assert answered.status == 503, answered
                    assert answered.headers["Retry-After"]
                    refused += 1

    async def drain(self, within: float = 60.0) -> float:
        """The backend takes events: all of them arrive, and one more is accepted. Seconds until then."""
        self.backend.on("user-joined", taken())
        begun = time.monotonic()
        async with asyncio.timeout(within):
            while not {event.key for event in self.backend.events()} >= set(self.accepted):
                await asyncio.sleep(0.05)
            while (await self.sidecar.event("user-joined", "after", key := f"after-{self._next}")).status != 202:
                await asyncio.sleep(0.05)
            self.accepted.append(key)
        return time.monotonic() - begun

    def delivered_again(self) -> int:
        """Deliveries beyond one for each event that was accepted."""
        times = Counter(event.key for event in self.backend.events())
        return sum(number - 1 for number in times.values())


@pytest.mark.parametrize(("kind", "size"), [("tmpfs", 50_000), ("tmpfs", 3_000), ("ext4", 50_000)])
async def test_a_full_volume_comes_back_by_itself_round_after_round(tmp_path: Path, kind: str, size: int) -> None:
    with small_disk(tmp_path / "disk", 24 * MEBIBYTE, kind) as disk:
        state = {"state_dir": str(disk.folder / "state")}
        async with Backend() as backend, Sidecar.start(backend.url, {**SETTINGS, **state}) as sidecar:
            volume, free, taken_before = Volume(sidecar, backend, disk), disk.free(), 0
            for number in range(3):
                await volume.fill(size)
                seconds = await volume.drain()
                count, taken_before = len(volume.accepted) - taken_before, len(volume.accepted)
                print(f"{kind} {size}: round {number}: {count} accepted, back in {seconds:.1f} s, free {disk.free()}")
                assert count * size > 4 * MEBIBYTE
            async with asyncio.timeout(20.0):  # the last marks are written behind
                while disk.free() < free - 8 * MEBIBYTE:
                    await asyncio.sleep(0.1)
            assert volume.delivered_again() == 0
            assert await sidecar.metric("outbox_parked") == 0


async def test_a_volume_that_is_full_when_the_daemon_is_killed_comes_back_too(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24 * MEBIBYTE) as disk:
        state = {"state_dir": str(disk.folder / "state")}
        async with Backend() as backend, Sidecar.prepared(backend.url, {**SETTINGS, **state}) as sidecar:
            volume = Volume(sidecar, backend, disk)
            await sidecar.run()
            for _ in range(2):
                await volume.fill(20_000)
                disk.fill()
                await sidecar.kill()
                await sidecar.run()
                backend.on("user-joined", taken())
                async with asyncio.timeout(60.0):
                    while not {event.key for event in backend.events()} >= set(volume.accepted):
                        await asyncio.sleep(0.05)
                disk.empty()
                await volume.drain()
            assert volume.delivered_again() == 0
            await sidecar.end()


async def test_a_volume_full_of_events_that_the_backend_refuses_comes_back_too(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 40 * MEBIBYTE) as disk:
        state = {"state_dir": str(disk.folder / "state")}
        async with Backend() as backend, Sidecar.start(backend.url, {**SETTINGS, **state}) as sidecar:
            volume = Volume(sidecar, backend, disk)
            for _ in range(3):
                await volume.fill(10_000)
                backend.on("user-joined", reply({"error": "x" * 4_000}, status=422))
                async with asyncio.timeout(60.0):
                    while await sidecar.metric("outbox_pending"):
                        await asyncio.sleep(0.05)
                    while (await sidecar.event("user-joined", "after")).status != 202:
                        await asyncio.sleep(0.05)
            assert await sidecar.metric("outbox_parked") > 100


async def test_a_start_on_a_full_volume_with_small_blocks_is_not_ended_by_the_kernel(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24 * MEBIBYTE, "ext4") as disk:
        state = disk.folder / "state"
        async with Backend() as backend, Sidecar.prepared(backend.url, {"state_dir": str(state)}) as sidecar:
            for blocks in (8, 12, 16, 20):
                await sidecar.run()
                assert (await sidecar.event("user-joined", "standup")).status == 202
                await sidecar.kill()
                for index in state.glob("*-shm"):
                    index.unlink()
                disk.fill(but=blocks * 1024)
                await sidecar.run()
                assert (await sidecar.decides("standup", "ann@example.com")).allowed is True
                await sidecar.kill()
                disk.empty()


async def test_a_deny_on_a_full_volume_outlives_a_kill(tmp_path: Path) -> None:
    users = [f"user-{number}@example.com" for number in range(40)]
    with small_disk(tmp_path / "disk", 24 * MEBIBYTE) as disk:
        asks_again = {"allow": {"fresh": 0, "stale_while_revalidate": 0}}
        settings = {"state_dir": str(disk.folder / "state"), "endpoints": {"validate-access": asks_again}}
        async with Backend() as backend, Sidecar.prepared(backend.url, settings) as sidecar:
            await sidecar.run()
            for user in users:
                assert (await sidecar.decides("standup", user)).allowed is True
            await asyncio.sleep(0.5)  # the allows are on disk
            backend.on("validate-access", deny("cancelled"))
            disk.fill()
            for user in users:
                assert (await sidecar.decides("standup", user)).allowed is False
            await sidecar.kill()
            await backend.stop()
            await sidecar.run()
            answered = [await sidecar.decides("standup", user) for user in users]
            assert [user for user, each in zip(users, answered, strict=True) if each.allowed] == []
            assert "cancelled" in answered[0].document["reason"]


async def test_check_warns_of_a_volume_that_is_too_small_for_the_outbox(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24 * MEBIBYTE) as disk:
        state = {"state_dir": str(disk.folder / "state")}
        async with Sidecar.prepared("http://127.0.0.1:9/x", state) as sidecar:
            sidecar.write()
            code, printed = await sidecar.command("check")
    assert code == 0
    assert f"warning: state_dir: the file system of {disk.folder}/state has a total size of 26 MB" in printed
