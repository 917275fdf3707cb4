"""The changes that other sidecars must hear of: said until the engine has them, and again to another epoch of it.

add     in the queue at once, and in the journal before it returns
load    what an earlier process left
write   the queue to the engine, oldest first
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from itertools import islice
from typing import Any, Protocol

from sidecar.clock import Clock
from sidecar.core.selection import Change, Made, Selector


class Journal(Protocol):
    """What outlives the process; everything raises DiskError."""

    async def name(self, new: str) -> str:
        """The name of this shard; it is `new` if there was none yet."""
        ...

    async def rename(self, new: str) -> None:
        """Write another name of this shard, synced."""
        ...

    async def shards(self) -> list[str]:
        """The names of all shards that were kept by `keep_shards`."""
        ...

    async def keep_shards(self, names: Collection[str]) -> None:
        """Write the names of all shards that may have rooms."""
        ...

    async def heard(self) -> tuple[str, int]:
        """What was kept by `hear`; an empty epoch: nothing."""
        ...

    async def hear(self, epoch: str, position: int) -> None:
        """Keep how far the stream of the others has been read, and what was heard until there is on disk."""
        ...

    async def add(self, made: Made) -> int:
        """Write a change, synced; returns its number."""
        ...

    async def said(self, number: int, epoch: str) -> None:
        """Write that the engine of this epoch has a change."""
        ...

    async def read(self) -> list[tuple[int, Made]]:
        """The changes of the last day, and whatever was never said, with their numbers, oldest first."""
        ...


class _Said:
    """One change. `number` in the journal; 0: it is not there (yet)."""

    def __init__(self, made: Made, number: int = 0) -> None:
        self.made = made
        self.number = number
        self.done = asyncio.Event()
        """Set when the engine has it."""


class ToSay:
    """All changes of the last day."""

    KEPT = 86_400.0
    """Seconds for which a change is said again to another epoch."""
    AT_ONCE = 50
    """Changes in one message to the engine."""
    MOST = 10_000
    """Changes that are remembered for that."""

    def __init__(self, journal: Journal, clock: Clock, say: Callable[[Sequence[Made]], Awaitable[str]]) -> None:
        """`say` brings changes to the engine, in order, and returns its epoch; it raises EngineError."""
        self.loaded = False
        """Whether those of an earlier process are here."""
        self._journal = journal
        self._clock = clock
        self._say = say
        self._waiting: deque[_Said] = deque()
        self._all: deque[_Said] = deque(maxlen=self.MOST)
        self._epoch = ""
        self._writing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many the engine has not acknowledged."""
        return len(self._waiting)

    async def load(self) -> None:
        """Read the journal, once. Raises DiskError."""
        rows = await self._journal.read()
        known = {said.number for said in self._all}
        earlier = [_Said(made, number) for number, made in rows if number not in known]
        self._all = deque([*earlier, *self._all], self.MOST)
        self.loaded = True
        self.repeat(self._epoch)

    async def add(self, selector: Selector, change: Change, wake: Callable[[], None], within: float) -> bool:
        """Say a change; returns whether the engine has it after so many seconds. Raises DiskError if neither the engine
        nor the disk has it. `wake` makes somebody call `write`."""
        said = _Said(Made(selector, change, self._clock.wall(), at=self._clock.monotonic()))
        self._waiting.append(said)
        self._all.append(said)
        wake()
        on_disk = self._spawn(self._to_disk(said))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await said.done.wait()
        if not said.done.is_set():
            await on_disk
        return said.done.is_set()

    def repeat(self, epoch: str) -> None:
        """Say all changes again that this epoch of the engine does not have."""
        self._epoch = epoch
        since = self._clock.wall() - self.KEPT
        self._waiting = deque(
            said
            for said in self._all
            if not said.made.epoch or (said.made.made_at >= since and said.made.epoch != epoch != "")
        )

    async def write(self) -> None:
        """Bring all to the engine. Raises EngineError; then the rest waits."""
        while self._waiting:
            waiting = self._waiting
            batch = list(islice(waiting, self.AT_ONCE))
            epoch = await self._say([said.made for said in batch])
            for said in batch:
                waiting.popleft()  # if `repeat` has made another queue in the meantime, it is said once more
                self._is_said(said, epoch)

    def _is_said(self, said: _Said, epoch: str) -> None:
        said.made = said.made._replace(epoch=epoch)
        said.done.set()
        if said.number:
            self._spawn(self._journal.said(said.number, epoch))

    async def _to_disk(self, said: _Said) -> None:
        said.number = await self._journal.add(said.made)
        if said.done.is_set():
            await self._journal.said(said.number, said.made.epoch)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Write to disk without waiting. A failure is said by the store."""
        task = asyncio.get_running_loop().create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()
