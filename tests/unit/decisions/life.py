"""One life of the sidecar's decisions: the real resolver, cache, write-behind and SQLite file, in virtual time.

machine = Machine(folder)
life = Life(machine, ask)     starts it; `kill` ends it as -9 does, `stop` as a signal does
machine.cut_the_power()       what was not synced is gone
machine.boots(off_for, wall)  the clocks begin again
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from sidecar.core.policy import Policy
from sidecar.decisions.write_behind import WriteBehind
from sidecar.errors import DiskError
from sidecar.facts import Fact
from sidecar.store.database import Database
from sidecar.store.decisions import LAYOUT, Decisions
from sidecar.store.file import Connection
from tests.unit.harness import Harness, Step
from tests.unit.virtual import VirtualClock

T = TypeVar("T")

FILES = (LAYOUT.name, f"{LAYOUT.name}-wal")


class Machine:
    """What is there when no process runs: the disk and the clocks. To be made within a running loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "state"
        self._synced = folder / "synced"
        self._synced.mkdir()
        self.boot = 0
        self.clock = VirtualClock()
        self.disk_takes = 0.0
        self.disk_fails = False

    def boots(self, wall_offset: float) -> None:
        """Twenty seconds ago; the wall clock is the loop's time and this."""
        self.boot += 1
        self.clock = VirtualClock(asyncio.get_running_loop().time() - 20.0, wall_offset)

    def has_synced(self) -> None:
        """What is in the file now survives a power failure."""
        for name in FILES:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, self._synced / name)
            else:
                (self._synced / name).unlink(missing_ok=True)

    def cut_the_power(self) -> None:
        """The file is as it was when it was synced last."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._synced, self.folder)


class _Worker:
    """Runs jobs in order, in virtual time and in the loop's thread. A job that has begun is done, as in a thread."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._turn = asyncio.Lock()
        self.tasks: set[asyncio.Task[Any]] = set()

    async def run(self, job: Callable[[], T]) -> T:
        task = asyncio.ensure_future(self._do(job))
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more

    async def _do(self, job: Callable[[], T]) -> T:
        async with self._turn:
            await asyncio.sleep(self._machine.disk_takes)
            if self._machine.disk_fails:
                raise DiskError("decisions.db: disk I/O error")
            return job()

    def stop(self) -> None: ...


class _Database(Database):
    def __init__(self, machine: Machine, emit: Callable[[Fact], None]) -> None:
        super().__init__(machine.folder, LAYOUT, machine.clock, emit)
        self.worker = _Worker(machine)
        self._worker = self.worker  # type: ignore[assignment]
        self._machine = machine

    async def write(self, job: Callable[[Connection], T], *, durable: bool, frees: bool = False) -> T:
        result = await super().write(job, durable=durable, frees=frees)
        if durable:
            self._machine.has_synced()
        return result


class Life:
    """One process."""

    def __init__(self, machine: Machine, backend: Step, decision: Policy, config: Policy) -> None:
        self.machine = machine
        self._facts: list[Fact] = []
        self._database = _Database(machine, self._facts.append)
        self._store = Decisions(self._database, machine.clock, f"boot-{machine.boot}", self._facts.append)
        self.writer: WriteBehind
        self.harness = Harness(decision=decision, config=config, memory=self._memory, clock=machine.clock)
        self.harness.backend.always(backend)
        self.resolver = self.harness.resolver
        self._tasks: set[asyncio.Task[Any]] = set()
        self.does(self.writer.run())

    def _memory(self, cache: Any) -> WriteBehind:
        self.writer = WriteBehind(cache, self._store)
        self.writer.MOST_DIRTY = 6
        return self.writer

    def does(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that ends with the process."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def kill(self) -> None:
        """As -9 does: nothing more is written, nobody gets an answer."""
        under_way = [*self._tasks, *self._database.worker.tasks, *self.resolver._calls._under_way._tasks]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self._database._recovery is not None:
            self._database._recovery.cancel()
        self._database._file.close()

    async def stop(self) -> None:
        """As a signal does: questions are answered, and what is dirty is written."""
        await self.resolver.drain(5.0)
        with contextlib.suppress(DiskError):
            await self.writer.stop()
        await self.kill()

    def crashes(self) -> list[BaseException]:
        """Defects that were reported."""
        return self.harness.crashes()
