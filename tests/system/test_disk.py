"""What a bad disk costs: events are refused in time and clearly, joins never notice, and it heals by itself.

The faults are real: a file system of 20 MiB that is full or read-only, files deleted and overwritten while they are in
use, and system calls that fail or take seconds (strace's fault injection, on the running process).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rig.answers import allow_if, reply, taken
from tests.rig.backend import Backend
from tests.rig.sidecar import Reply, Sidecar
from tests.rig.smalldisk import MEBIBYTE, SmallDisk, small_disk
from tests.rig.strace import injected

SETTINGS: dict[str, Any] = {"outbox": {"backoff_cap": 0.5}}
REFUSED = reply({}, status=503)


@dataclass(slots=True)
class Bench:
    """A sidecar whose state lies on a small disk, with one user who is known and one who is kept out."""

    sidecar: Sidecar
    backend: Backend
    disk: SmallDisk
    accepted: list[int]
    _next: int = 0

    async def tell(self, size: int = 10, room: str = "standup") -> Reply:
        """One more event of that many bytes."""
        self._next += 1
        answered = await self.sidecar.event("user-joined", room, n=self._next, filler="x" * size)
        if answered.status == 202:
            self.accepted.append(self._next)
        return answered

    async def tell_until(self, status: int, *, size: int = 10, within: float = 15.0) -> Reply:
        """Events until one is answered so."""
        async with asyncio.timeout(within):
            while (answered := await self.tell(size)).status != status:
                await asyncio.sleep(0.01)
        return answered

    async def joins_are_right(self) -> None:
        """Those who are known, and one who was never seen, within half a second each."""
        for room, user, right in (("open", "ann", True), ("cancelled", "ann", False), ("open", f"u{self._next}", True)):
            answered = await self.sidecar.decides(room, user)
            assert answered.allowed is right, answered
            assert answered.seconds < 0.5 + 0.5, "half a second, and half a second for a busy machine"

    async def reasons(self) -> str:
        """Why /readyz says it is degraded; it says so with a 200, for joins are served."""
        reply = await self.sidecar.get("/readyz")
        assert reply.status == 200
        return reply.body.decode()

    async def healed(self, within: float = 10.0) -> None:
        """Wait until nothing is wrong with the disk any more."""
        async with asyncio.timeout(within):
            while "disk:" in await self.reasons():
                await asyncio.sleep(0.05)

    def disk_alarms(self, file: str = "outbox.db") -> list[str]:
        """What the log says about a file, at level error."""
        alarms = [line for line in self.sidecar.alarms() if line["event"] != "request"]
        return [str(line) for line in alarms if file in str(line)]

    async def says(self, words: str, file: str, within: float = 10.0) -> None:
        """Wait for an alarm about a file. A start waits a second for the disk, and goes on without it."""
        async with asyncio.timeout(within):
            while not any(words in alarm for alarm in self.disk_alarms(file)):
                await asyncio.sleep(0.05)

    async def everything_arrives(self) -> None:
        """All that was acknowledged, in order."""
        async with asyncio.timeout(15.0):
            while [event.body["n"] for event in self.backend.first_arrivals("standup")] != self.accepted:
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def a_bench(
    tmp_path: Path, *, start: bool = True, settings: dict[str, Any] | None = None
) -> AsyncIterator[Bench]:
    with small_disk(tmp_path / "disk", 24 * MEBIBYTE) as disk:
        state = {"state_dir": str(disk.folder / "state")}
        async with (
            Backend() as backend,
            Sidecar.prepared(backend.url, {**SETTINGS, **state, **(settings or {})}) as sidecar,
        ):
            backend.on("validate-access", allow_if(lambda body: body["roomName"] != "cancelled"))
            bench = Bench(sidecar, backend, disk, [])
            if start:
                await sidecar.run()
                await bench.joins_are_right()
                await bench.tell_until(202)
            yield bench


async def test_a_full_disk_refuses_events_and_nothing_else_and_heals(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.backend.on("user-joined", REFUSED)
        bench.disk.fill()
        refused = await bench.tell_until(503, size=60_000)
        assert "the event was not taken, send it again" in refused.document["detail"]
        assert refused.headers["Retry-After"]
        await bench.joins_are_right()
        assert "outbox.db" in await bench.reasons()
        for _ in range(10):
            assert (await bench.tell(60_000)).status == 503
        assert len(bench.disk_alarms()) == 1, bench.disk_alarms()
        bench.backend.on("user-joined", taken())
        bench.disk.empty()
        await bench.healed()
        assert (await bench.tell()).status == 202
        await bench.everything_arrives()


async def test_a_full_disk_does_not_stop_deliveries(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.backend.on("user-joined", REFUSED)
        bench.disk.fill()
        await bench.tell_until(503, size=60_000)
        bench.backend.on("user-joined", taken())
        await bench.everything_arrives()


async def test_a_read_only_disk_at_start_costs_events_and_nothing_else_and_heals(tmp_path: Path) -> None:
    async with a_bench(tmp_path, start=False) as bench:
        bench.disk.read_only(True)
        await bench.sidecar.run()
        await bench.joins_are_right()
        refused = await bench.tell()
        assert refused.status == 503
        assert "outbox.db" in await bench.reasons()
        bench.disk.read_only(False)
        await bench.healed()
        assert (await bench.tell()).status == 202
        await bench.everything_arrives()


async def test_a_sync_that_fails_refuses_the_event_and_heals(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        assert bench.sidecar.process is not None
        async with injected(bench.sidecar.process.pid, "fdatasync,fsync:error=EIO"):
            assert (await bench.tell()).status == 503
            await bench.joins_are_right()
            assert "outbox.db" in await bench.reasons()
            await asyncio.sleep(2.0)
            assert (await bench.tell()).status == 503
            assert len(bench.disk_alarms()) == 1, bench.disk_alarms()
        await bench.healed()
        assert (await bench.tell()).status == 202
        # What was refused may have reached the disk all the same: then it arrives, but it was not promised.
        async with asyncio.timeout(15.0):
            while not {event.body["n"] for event in bench.backend.events()} >= set(bench.accepted):
                await asyncio.sleep(0.05)


async def test_a_sync_that_takes_seconds_holds_up_no_join_and_refuses_events_in_time(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        assert bench.sidecar.process is not None
        async with injected(bench.sidecar.process.pid, "fdatasync,fsync:delay_enter=8000000"):
            telling = asyncio.create_task(bench.tell())
            await asyncio.sleep(0.2)
            for _ in range(5):
                await bench.joins_are_right()
            # A deny that is not on disk yet waits for it a quarter of a second, and then is answered all the same.
            denied = await bench.sidecar.decides("cancelled", "someone-new")
            assert denied.allowed is False
            assert denied.seconds < 0.25 + 0.5
            answered = await telling
            assert answered.status == 503
            assert answered.seconds < 4.0
            assert "longer than" in await bench.reasons()
            assert len(bench.disk_alarms()) == 1, bench.disk_alarms()
        await bench.healed(20.0)
        assert (await bench.tell_until(202)).status == 202


@pytest.mark.parametrize("gone", ["files", "folder"])
async def test_files_deleted_underneath_are_written_again_and_nothing_is_lost(tmp_path: Path, gone: str) -> None:
    async with a_bench(tmp_path) as bench:
        bench.backend.on("user-joined", REFUSED)
        for _ in range(5):
            assert (await bench.tell()).status == 202
        folder = bench.disk.folder / "state"
        for file in folder.iterdir():
            if file.name != "lock":
                file.unlink()
        if gone == "folder":
            (folder / "lock").unlink()
            folder.rmdir()
        await bench.joins_are_right()
        await bench.tell_until(202)
        await asyncio.sleep(0.5)
        await bench.sidecar.kill()
        bench.backend.on("user-joined", taken())
        await bench.sidecar.run()
        await bench.everything_arrives()
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
        modes.pop("admin.sock", None)  # no file; the folder lets in nobody else
        assert set(modes.values()) == {0o600}, modes
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("file", ["decisions.db", "outbox.db"])
async def test_a_file_full_of_garbage_is_moved_aside_loudly_and_the_other_is_not_touched(
    tmp_path: Path, file: str
) -> None:
    async with a_bench(tmp_path) as bench:
        await asyncio.sleep(0.5)
        folder = bench.disk.folder / "state"
        other = "outbox.db" if file == "decisions.db" else "decisions.db"
        untouched = (folder / other).stat().st_ino
        for suffix in ("", "-wal"):
            with (folder / f"{file}{suffix}").open("r+b") as damaged:
                damaged.write(os.urandom(os.fstat(damaged.fileno()).st_size))
        for number in range(20):  # each writes to both files
            await bench.sidecar.decides(f"room-{number}", "someone")
            await bench.tell()
            await asyncio.sleep(0.05)
        await bench.joins_are_right()
        await bench.healed()
        assert (await bench.tell()).status == 202
        await bench.sidecar.kill()
        await bench.sidecar.run()
        await bench.joins_are_right()
        await bench.says("moved aside", file)
        await bench.everything_arrives()
        assert list(folder.glob(f"{file}.overwritten-*"))
        assert not list(folder.glob(f"{other}.*-*"))
        assert (folder / other).stat().st_ino == untouched


async def test_no_secret_and_no_token_is_in_any_file(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "secret").write_text("the-webhook-secret")
    async with a_bench(tmp_path, settings={"backend": {"secret_file": str(tmp_path / "secret")}}) as bench:
        who = {"userId": "ann@example.com", "bearerToken": "the-bearer-token"}
        joined = await bench.sidecar.decides("open", "ann@example.com", **who)
        assert joined.allowed is True
        await bench.tell_until(202)
        await asyncio.sleep(0.5)
        content = b"".join(file.read_bytes() for file in (bench.disk.folder / "state").iterdir() if file.is_file())
    assert b"ann@example.com" in content
    assert b"the-bearer-token" not in content
    assert b"the-webhook-secret" not in content
