"""Memory to disk and back: what becomes dirty in the cache is written behind, what the disk remembers is loaded.

    cache.dirty --every 0.2 s, or at once for persist()--> store.save   (those who wait share one commit)
    store.load  --a batch at a time--> cache.restore                    (who cannot wait: recall(), one key)

A row leaves `dirty` only when it is on disk and nothing newer has taken its place. What the disk cannot take for long
is not piled up: then the whole file is written again from the cache as soon as it can be.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from sidecar.core.model import Entry, Key, Verdict
from sidecar.decisions.cache import Cache, Selector
from sidecar.errors import DiskError

Rows = Mapping[Key, Entry | None]


class DecisionStore(Protocol):
    """What write-behind needs of the disk; everything raises DiskError."""

    @property
    def generation(self) -> int:
        """Grows whenever a new file was begun."""
        ...

    async def save(self, rows: Rows, *, durable: bool = False) -> None:
        """Write and delete rows in one transaction."""
        ...

    def load(self) -> AsyncIterator[list[tuple[Key, Entry]]]:
        """Everything that is still of use."""
        ...

    async def recall(self, key: Key) -> list[tuple[Key, Entry]]:
        """One key, and what may make it suspect."""
        ...

    async def clear(self) -> None:
        """Delete everything."""
        ...


class WriteBehind:
    """The only one who reads or writes decisions on disk. With no store, nothing is kept and every promise is void."""

    CHUNK = 2_000
    """Rows in one transaction: a deny waits for no more than that."""
    MOST_DIRTY = 20_000
    """Rows that wait for a disk that is not usable; beyond that the whole file is written again when it is."""
    HEARTBEAT = 300
    """Rounds without anything to write after which the disk's clock is written all the same."""

    def __init__(
        self, cache: Cache, store: DecisionStore | None, *, every: float = 0.2, recall_within: float = 0.2
    ) -> None:
        """`every`: seconds between two rounds; `recall_within`: seconds one miss may wait for the disk."""
        self._cache = cache
        self._store = store
        self._every = every
        self._recall_within = recall_within
        self._wake = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()
        self._loaded = asyncio.Event()
        self._purged: list[Selector] = []
        self._generation = 0 if store is None else store.generation
        self._rewrite = False
        self._recall_failed = False
        if store is None:
            self._loaded.set()

    @property
    def loaded(self) -> bool:
        """Whether everything the disk remembers is in the cache."""
        return self._loaded.is_set()

    async def run(self) -> None:
        """Load, and write behind until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load_at_last())
            group.create_task(self._write_behind())

    async def load(self) -> None:
        """Bring everything the disk remembers into the cache. Raises DiskError; then it can be called again."""
        if self._store is None or self._loaded.is_set():
            return
        with _no_collection():
            async for batch in self._store.load():
                if self._loaded.is_set():
                    return
                self._restore(batch)
                self._recall_failed = False
        self._loaded.set()
        self._purged.clear()

    async def recall(self, key: Key) -> None:
        """While the disk is still being read, bring in this one key. Waits a little, never raises."""
        if self._store is None or self._loaded.is_set() or self._recall_failed or self._cache.get(key) is not None:
            return
        try:
            async with asyncio.timeout(self._recall_within):
                remembered = await self._store.recall(key)
        except (DiskError, TimeoutError):
            self._recall_failed = True  # until a batch comes through again
        else:
            if not self._loaded.is_set():
                self._restore(remembered)

    async def persist(self) -> None:
        """When this returns, everything that is dirty now is on disk, synced. Raises DiskError if it is not."""
        if self._store is None or not (self._cache.dirty or self._rewrite):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        self._wake.set()
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)  # on a disk that hangs nobody else takes it away

    async def purge(self, now: float, selector: Selector) -> int:
        """Forget what is meant, in memory at once and then on disk; returns how many entries went.

        Raises DiskError if the disk still remembers: then it is forgotten there as soon as that can be done.
        """
        forgotten = self._cache.purge(now, selector)
        if self._store is not None and not self._loaded.is_set():
            self._purged.append(selector)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await self._loaded.wait()
            if not self._loaded.is_set():
                raise DiskError("the decisions on disk have not been read yet; those that are meant will be left out")
        await self.persist()
        return forgotten

    async def stop(self, grace: float = 5.0) -> None:
        """Write what is dirty, once, without a running `run`. Raises DiskError, also after `grace` seconds."""
        try:
            async with asyncio.timeout(grace):
                await self._write()
        except TimeoutError:
            raise DiskError(f"the disk takes longer than {grace:g} s") from None

    async def _load_at_last(self) -> None:
        while not self._loaded.is_set():
            try:
                await self.load()
            except DiskError:
                await asyncio.sleep(max(self._every, 1.0))

    async def _write_behind(self) -> None:
        idle = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._wake.wait()
            self._wake.clear()
            idle = 0 if self._cache.dirty or self._waiting else idle + 1
            if idle in (0, self.HEARTBEAT):
                with contextlib.suppress(DiskError):
                    await self._write()
                idle = 0

    async def _write(self) -> None:
        """Write everything that is dirty when this begins; those who waited until then learn of it."""
        waiting, self._waiting = self._waiting, set()
        try:
            await self._save(durable=bool(waiting))
        except DiskError as error:
            self._too_many()
            for waiter in waiting:
                _settle(waiter, error)
            raise
        except asyncio.CancelledError:
            for waiter in waiting:
                _settle(waiter, DiskError("stopped before it was on disk"))
            raise
        for waiter in waiting:
            _settle(waiter, None)

    async def _save(self, *, durable: bool) -> None:
        dirty = self._cache.dirty
        if self._store is None:
            dirty.clear()
            return
        if self._loaded.is_set() and self._generation != self._store.generation:
            self._rewrite = True
        if self._rewrite and self._loaded.is_set():
            await self._store.clear()
            self._rewrite, self._generation = False, self._store.generation
            for key, entry in self._cache.items():
                dirty.setdefault(key, entry)
        rows = dict(_denies_first(dirty.items()))
        remaining = iter(rows.items())
        while chunk := dict(islice(remaining, self.CHUNK)):
            await self._store.save(chunk, durable=durable)
            for key, row in chunk.items():
                if dirty.get(key, _NOTHING) is row:
                    del dirty[key]
        if not rows:
            await self._store.save({}, durable=durable)

    def _too_many(self) -> None:
        if len(self._cache.dirty) > self.MOST_DIRTY:
            self._cache.dirty.clear()
            self._rewrite = True
            self._loaded.set()  # what had not been read by now is out of date: memory knows of changes the disk missed

    def _restore(self, remembered: Sequence[tuple[Key, Entry]]) -> None:
        cache = self._cache
        meant: set[Key] = set()
        if self._purged:
            meant = {key for key, _ in remembered if any(selector.fits(key) for selector in self._purged)}
            remembered = [(key, entry) for key, entry in remembered if key not in meant]
        for key in (*meant, *cache.restore_all(remembered)):
            if cache.get(key) is None:
                cache.dirty[key] = None  # purged, or dropped since: it must not come back at the next start either


_NOTHING = object()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Nothing that is loaded is garbage, but the collector would look for some again and again, tens of milliseconds
    at a time while nobody is answered; and once more whenever it looks at everything, unless it is told to leave out
    what is there now."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.freeze()


def _denies_first(rows: Iterable[tuple[Key, Entry | None]]) -> list[tuple[Key, Entry | None]]:
    return sorted(rows, key=lambda row: row[1] is None or row[1].verdict is not Verdict.DENY)


def _settle(waiter: asyncio.Future[None], error: DiskError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
