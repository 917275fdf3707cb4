"""One SQLite file as the event loop sees it: jobs go to its worker thread, and it is usable or it is not.

While it is not, writes fail at once without touching the disk, and one healer tries again every second.
`DiskChanged` is said once per change, so a full disk is one alarm and not a thousand.

    write(job) -> worker thread -> done: usable
                                -> DiskError: unusable -> healer: a real write, again and again, until it succeeds
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sidecar.clock import Clock
from sidecar.errors import DiskError
from sidecar.facts import DiskChanged, Emit
from sidecar.store.file import Connection, File, Layout
from sidecar.store.worker import Worker

T = TypeVar("T")


class Database:
    """One file in the state folder, or memory where there is no folder. All methods belong to the event loop."""

    def __init__(
        self,
        folder: Path | None,
        layout: Layout,
        clock: Clock,
        emit: Emit,
        *,
        heal_every: float = 1.0,
        slow_after: float = 2.0,
    ) -> None:
        """Nothing is opened yet: the first job does."""
        self.generation = 0
        """Grows whenever a new, empty file is begun: what had been saved is no longer there."""
        self._file = File(folder, layout, clock)
        self._name = layout.name
        self._clock = clock
        self._emit = emit
        self._heal_every = heal_every
        self._slow_after = slow_after
        self._worker = Worker(f"disk {layout.name}")
        self._trouble: str | None = None
        self._healer: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str | None:
        """Why the file is not usable now; None when it is."""
        return self._trouble

    async def write(self, job: Callable[[Connection], T], *, durable: bool) -> T:
        """Run the job in one transaction. `durable`: synced to the disk before this returns.

        Raises DiskError; then nothing of the job is in the file, or (a sync that failed) perhaps all of it.
        """
        if self._trouble is not None and self._healer is not None:
            raise DiskError(self._trouble)
        return await self._attempt(lambda: self._file.write(job, durable))

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run a job that changes nothing. Raises DiskError."""
        try:
            return await self._worker.run(lambda: self._file.read(job))
        except DiskError as error:
            self._became(str(error))
            raise
        finally:
            self._pass_on()

    async def close(self) -> None:
        """Close the file and end its thread. Waits for a slow disk at most a few seconds."""
        if self._healer is not None:
            self._healer.cancel()
            await asyncio.gather(self._healer, return_exceptions=True)
        with contextlib.suppress(TimeoutError, DiskError):
            async with asyncio.timeout(5.0):
                await self._worker.run(self._file.close)
        self._worker.stop()

    async def _attempt(self, job: Callable[[], T]) -> T:
        slow = asyncio.get_running_loop().call_later(self._slow_after, self._slow)
        try:
            result = await self._worker.run(job)
        except DiskError as error:
            self._became(str(error))
            raise
        else:
            self._became(None)
            return result
        finally:
            slow.cancel()
            self._pass_on()

    def _slow(self) -> None:
        self._say(f"a write takes longer than {self._slow_after:g} s")

    def _became(self, trouble: str | None) -> None:
        self._say(trouble)
        if trouble is not None and self._healer is None:
            self._healer = asyncio.create_task(self._heal())

    def _say(self, trouble: str | None) -> None:
        before, self._trouble = self._trouble, trouble
        if (before is None) is not (trouble is None):
            self._emit(DiskChanged(self._name, usable=trouble is None, reason=trouble or ""))

    def _pass_on(self) -> None:
        self.generation = self._file.generation
        while self._file.facts:
            self._emit(self._file.facts.popleft())

    async def _heal(self) -> None:
        while True:  # at once the first time: in place of a file that was moved aside a new one can be begun
            with contextlib.suppress(DiskError):
                await self._attempt(self._file.probe)
                self._healer = None
                return
            await asyncio.sleep(self._heal_every)
