"""One SQLite file as the event loop sees it: jobs go to its worker thread, and the file is usable or not.

While it is not usable, writes fail at once without touching the disk, and one task tries a real write every second.
`DiskChanged` is emitted once per change, so that a full disk is one alarm and not thousands.

    write(job) -> worker thread -> done: usable
                                -> DiskError: not usable -> a real write every second, until one succeeds
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
from sidecar.store.file import Connection, File
from sidecar.store.layout import Layout
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
        retry_every: float = 1.0,
        slow_after: float = 2.0,
    ) -> None:
        """The first job opens the file. `retry_every`, `slow_after`: seconds; a slower write counts as a failure."""
        self.generation = 0
        """Grows with each new, empty file: what was saved before is not in it."""
        self._file = File(folder, layout, clock)
        self._name = layout.name
        self._clock = clock
        self._emit = emit
        self._retry_every = retry_every
        self._slow_after = slow_after
        self._worker = Worker(f"disk {layout.name}")
        self._trouble: str | None = None
        self._recovery: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str | None:
        """Why the file is not usable now; None when it is."""
        return self._trouble

    @property
    def aside(self) -> list[str]:
        """The names of the files in the folder that were moved aside because they could not be used."""
        return self._file.aside

    @property
    def full(self) -> bool:
        """Whether only jobs that free space are done."""
        return self._file.space is not None and self._file.space.shortage is not None

    @property
    def volume(self) -> int | None:
        """Bytes of the file system, once the file is open."""
        return None if self._file.space is None else self._file.space.volume

    async def write(self, job: Callable[[Connection], T], *, durable: bool, frees: bool = False) -> T:
        """Run the job in one transaction. `durable`: synced to the disk before this returns. `frees`: the job deletes
        more than it writes, or is short; it is tried on a full disk too.

        Raises DiskError; then nothing of the job is in the file, or (a sync that failed) perhaps all of it.
        """
        if self._trouble is not None and self._recovery is not None and not (frees and self.full):
            raise DiskError(self._trouble)
        return await self._attempt(lambda: self._file.write(job, durable, frees))

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run a job that changes nothing. Raises DiskError."""
        try:
            result = await self._worker.run(lambda: self._file.read(job))
            if self.full and self._trouble is None:  # found when the file was opened
                self._note(self._shortage())
            return result
        except DiskError as error:
            self._note(str(error))
            raise
        finally:
            self._emit_facts()

    async def close(self) -> None:
        """Close the file and end its thread. Waits for a slow disk at most a few seconds."""
        if self._recovery is not None:
            self._recovery.cancel()
            await asyncio.gather(self._recovery, return_exceptions=True)
        with contextlib.suppress(TimeoutError, DiskError):
            async with asyncio.timeout(5.0):
                await self._worker.run(self._file.finish)
        self._emit_facts()
        self._worker.stop()

    async def _attempt(self, job: Callable[[], T]) -> T:
        slow = asyncio.get_running_loop().call_later(self._slow_after, self._note_slow)
        try:
            result = await self._worker.run(job)
        except DiskError as error:
            self._note(str(error))
            raise
        else:
            self._note(self._shortage())
            return result
        finally:
            slow.cancel()
            self._emit_facts()

    def _shortage(self) -> str | None:
        shortage = None if self._file.space is None else self._file.space.shortage
        return None if shortage is None else f"{self._name}: {shortage}"

    def _note_slow(self) -> None:
        self._change(f"a write takes longer than {self._slow_after:g} s")

    def _note(self, trouble: str | None) -> None:
        """A job has ended: with this trouble, or well."""
        self._change(trouble)
        if trouble is not None and self._recovery is None:
            self._recovery = asyncio.create_task(self._recover())

    def _change(self, trouble: str | None) -> None:
        before, self._trouble = self._trouble, trouble
        if (before is None) is not (trouble is None):
            self._emit(DiskChanged(self._name, usable=trouble is None, reason=trouble or ""))

    def _emit_facts(self) -> None:
        self.generation = self._file.generation
        while self._file.facts:
            self._emit(self._file.facts.popleft())

    async def _recover(self) -> None:
        while True:  # the first try comes at once: where a file was moved aside, a new one can be created now
            with contextlib.suppress(DiskError):
                await self._attempt(self._file.probe)
                self._recovery = None
                return
            await asyncio.sleep(self._retry_every)
