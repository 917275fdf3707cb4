"""Short waits for the disk: a disk that hangs or fails must not keep a user out.

A question waits so long and no longer, and then goes on without the disk. The store has reported its failure already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

from sidecar.clock import Clock
from sidecar.core.model import Key
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache
from sidecar.errors import DiskError
from sidecar.facts import Crashed, Emit

DISK_WAIT = 0.25
"""Seconds a question waits for the disk: to read an entry, or to have a definite deny on it before it is answered."""

SAVE_WAIT = 0.05
"""Seconds it waits at least for a deny to be on disk, also at its deadline: a part of what is kept for the answer."""


class Memory(Protocol):
    """What outlives the process, as far as decisions need it."""

    @property
    def loaded(self) -> bool:
        """Whether the cache holds everything the disk remembers."""
        ...

    async def recall(self, key: Key) -> None:
        """Until everything is loaded: put this one entry into the cache, if there is one. Never raises."""
        ...

    async def persist(self, key: Key | None = None) -> None:
        """Return when all that must not be lost is on disk, and nothing older is there for this key; raises DiskError
        if it is not."""
        ...

    async def purge(self, now: float, selector: Selector, change: Change = Change.DROP) -> int:
        """Change what is meant, in the cache and on disk; raises DiskError if it is still on disk as it was."""
        ...


class Disk:
    """Waits for reads and writes, never past the instant `until`. Its methods do not raise."""

    def __init__(self, cache: Cache, memory: Memory, clock: Clock, emit: Emit) -> None:
        """`memory` writes what is dirty in `cache`."""
        self._cache = cache
        self._memory = memory
        self._clock = clock
        self._emit = emit

    async def read(self, key: Key, until: float) -> None:
        """Read this key's entry into the cache. Needed only until everything has been loaded."""
        if self._cache.get(key) is None:
            await self._wait(self._memory.recall(key), until - self._clock.monotonic())

    async def save(self, key: Key, until: float) -> None:
        """Wait until a deny is on disk: a crash must not bring back the allow that it took away. The same for whatever
        else took something away."""
        if key in self._cache.dirty:
            await self._wait(self._memory.persist(key), max(SAVE_WAIT, until - self._clock.monotonic()))

    async def _wait(self, work: Awaitable[None], left: float) -> None:
        try:
            async with asyncio.timeout(min(DISK_WAIT, max(0.0, left))):
                await work
        except (TimeoutError, DiskError):
            pass
        except Exception as error:  # noqa: BLE001 - a defect of ours, and no reason to keep anybody out
            self._emit(Crashed("disk", error))
