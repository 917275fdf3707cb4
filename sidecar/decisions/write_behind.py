"""The cache to disk and back: changes are written behind, and at start everything on disk is loaded.

    cache.dirty --0.2 s after a change, or at once for persist()--> store.save   (all who wait share one commit)
    store.first, then store.load --a batch at a time--> cache.restore_all   (one key sooner: recall())

Until the first rows are read, the denies and what else is lasting, `cache.denies_known` is False. A row leaves `dirty`
only when it is on disk and the cache has nothing newer. If the disk fails for so long that too many rows wait, those
that are not protective are dropped, and the whole file is written again from the cache when the disk is usable again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from sidecar.clock import until_next
from sidecar.core.decision_body import is_lasting, is_protective
from sidecar.core.model import Entry, Key
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache
from sidecar.errors import DiskError

Rows = Mapping[Key, Entry | None]


class DecisionStore(Protocol):
    """What write-behind needs of the disk; everything raises DiskError."""

    @property
    def generation(self) -> int:
        """Grows with each new file."""
        ...

    @property
    def full(self) -> bool:
        """Whether the disk is full: then only a few rows at a time can be written, and only protective ones."""
        ...

    async def lacks_denies(self) -> bool:
        """Whether denies were lost with a damaged file."""
        ...

    async def save(self, rows: Rows, *, durable: bool = False) -> None:
        """Write and delete rows in one transaction."""
        ...

    def first(self) -> AsyncIterator[list[tuple[Key, Entry]]]:
        """All denies, and whatever else is lasting."""
        ...

    def load(self) -> AsyncIterator[list[tuple[Key, Entry]]]:
        """All other entries that have not expired."""
        ...

    def missed(self) -> float:
        """Seconds by which entries from before this boot are older than they say, as is known now."""
        ...

    async def recall(self, key: Key) -> list[tuple[Key, Entry]]:
        """The entry of one key, in a list; an empty one if there is none."""
        ...

    async def replace(self, rows: Rows) -> None:
        """Delete everything and write these rows, in one transaction."""
        ...


class WriteBehind:
    """The only reader and writer of decisions on disk. With no store, nothing outlives the process."""

    CHUNK = 2_000
    """Rows in one transaction. They are few, so that a deny does not wait long for its commit."""
    FULL_DISK = 100
    """Rows in one transaction on a full disk: what the reserve of the store is made for."""
    MOST_DIRTY = 20_000
    """Rows besides denies that may wait for a disk that is not usable. With more, the whole file is written again when
    it is."""
    IDLE = 5
    """Rounds that one takes in which nothing changes: an idle sidecar hardly wakes up."""
    CLOCK_ROUNDS = 60
    """Rounds with nothing to write after which the clock of the disk is written all the same."""

    def __init__(
        self, cache: Cache, store: DecisionStore | None, *, every: float = 0.2, recall_within: float = 0.2
    ) -> None:
        """`every`: seconds from a change to the round that writes it; `recall_within`: seconds that one miss may wait
        for the disk."""
        self._cache = cache
        self._store = store
        self._every = every
        self._recall_within = recall_within
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiting: set[asyncio.Future[None]] = set()
        self._outdated_rows: set[Key] = set()
        self._unsynced = False
        self._loaded = asyncio.Event()
        self._denies_known = asyncio.Event()
        self._outdated = False
        self._denies_waiting = 0
        self._generation = 0 if store is None else store.generation
        self._rewrite = False
        self._recall_failed = False
        if store is None:
            self._loaded.set()
            self._denies_known.set()
        cache.dirty.on_change = self._changed.set
        cache.denies_known = store is None
        cache.changes.loading = store is not None

    @property
    def loaded(self) -> bool:
        """Whether everything on disk is in the cache."""
        return self._loaded.is_set()

    async def denies_read(self, within: float) -> None:
        """Wait until the denies on disk are in the cache; at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._denies_known.wait()

    async def run(self) -> None:
        """Load, and write behind until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._load_until_done())
            group.create_task(self._write_behind())

    async def load(self) -> None:
        """Read everything on disk into the cache. Raises DiskError; then it can be called again."""
        if self._store is None or self._loaded.is_set():
            return
        with _no_collection():
            if not self._denies_known.is_set():
                await self._load(self._store.first())
                self._cache.lacks_denies = await self._store.lacks_denies()
                self._cache.denies_known = True
                self._denies_known.set()
            await self._load(self._store.load())
        self._loaded.set()
        self._cache.changes.loading = False

    async def _load(self, batches: AsyncIterator[list[tuple[Key, Entry]]]) -> None:
        async for batch in batches:
            if self._outdated:
                batch = [row for row in batch if is_lasting(row[1])]  # noqa: PLW2901
            self._restore(batch)
            self._recall_failed = False

    async def recall(self, key: Key) -> None:
        """Until everything is loaded: read this one key into the cache. Waits a little, never raises."""
        if self._store is None or self._loaded.is_set() or self._recall_failed or self._cache.get(key) is not None:
            return
        try:
            async with asyncio.timeout(self._recall_within):
                remembered = await self._store.recall(key)
        except (DiskError, TimeoutError):
            self._recall_failed = True  # until a batch can be read again
        else:
            if not (self._loaded.is_set() or self._outdated):
                self._restore(remembered)

    async def persist(self, key: Key | None = None) -> None:
        """Return when all that must not be lost of what is dirty now, or was, is synced to the disk. The row of this
        key, if it is dirty, may then be missing there, and is not older. Raises DiskError if it is not so."""
        if self._store is None or not (self._cache.dirty or self._rewrite or self._unsynced):
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        if key is not None:
            self._outdated_rows.add(key)
        self._changed.set()
        self._wanted.set()
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)  # while the disk hangs, nothing else removes it

    async def purge(self, now: float, selector: Selector, change: Change = Change.DROP) -> int:
        """Change what is selected, in memory at once and then on disk; returns how many entries were changed.

        Raises DiskError if it is still on disk as it was: then it is changed there as soon as that can be done.
        """
        purged = self._cache.purge(now, selector, change)
        if self._store is not None and not self._loaded.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await self._loaded.wait()
            if not self._loaded.is_set():
                raise DiskError("the decisions on disk have not been read yet; the purged ones will be left out")
        await self.persist()
        return purged

    async def stop(self, grace: float = 5.0) -> None:
        """Write once what is dirty, after `run` has ended. Raises DiskError, also after `grace` seconds."""
        try:
            async with asyncio.timeout(grace):
                await self._write()
        except TimeoutError:
            raise DiskError(f"the disk takes longer than {grace:g} s") from None

    async def _load_until_done(self) -> None:
        while not self._loaded.is_set():
            try:
                await self.load()
            except DiskError:
                await asyncio.sleep(max(self._every, 1.0))

    async def _write_behind(self) -> None:
        idle = 0
        while True:
            if not self._cache.dirty:
                pause = until_next(self.IDLE * self._every, asyncio.get_running_loop().time())
                await _within(pause, self._changed)
            if self._cache.dirty:
                await _within(self._every, self._wanted)  # more changes, for one transaction
            self._changed.clear()
            self._wanted.clear()
            if self._store is not None:
                self._cache.missed = self._store.missed()
            idle = 0 if self._cache.dirty or self._waiting else idle + 1
            if idle in (0, self.CLOCK_ROUNDS):
                with contextlib.suppress(DiskError):
                    await self._write()
                idle = 0

    async def _write(self) -> None:
        """Write everything that is dirty when this begins; `persist` returns or raises for all who wait by then."""
        waiting, self._waiting = self._waiting, set()
        failure: DiskError | None = DiskError("stopped before it was on disk")
        try:
            await self._save_first(durable=bool(waiting))
            failure = None
            for waiter in waiting:
                _settle(waiter, None)
            await self._save_others()
        except DiskError as error:
            self._drop_if_too_many()
            failure = error
            raise
        finally:
            for waiter in waiting:
                _settle(waiter, failure)

    async def _save_first(self, *, durable: bool) -> None:
        """What must not be lost: what is lasting, deletions, and answers that were made suspect."""
        if self._store is None:
            self._cache.dirty.clear()
            return
        if self._loaded.is_set():
            await self._rewrite_if_needed(self._store)
        dirty = self._cache.dirty
        outdated, self._outdated_rows = self._outdated_rows, set()
        rows = {key: row for key, row in dirty.items() if is_protective(row)}
        rows |= {key: None for key in outdated if key in dirty and key not in rows}  # `_save_others` has the new row
        if not rows and (not dirty or (durable and self._unsynced)):
            await self._store.save({}, durable=durable)  # the clock; and what was written before is synced
            self._unsynced = self._unsynced and not durable
        await self._save(self._store, sorted(rows.items(), key=lambda row: row[1] is None), durable=durable)

    async def _save_others(self) -> None:
        if self._store is not None:
            rows = [row for row in self._cache.dirty.items() if not is_protective(row[1])]
            await self._save(self._store, rows, durable=False)

    async def _save(self, store: DecisionStore, rows: list[tuple[Key, Entry | None]], *, durable: bool) -> None:
        remaining = iter(rows)
        while chunk := dict(islice(remaining, self.FULL_DISK if store.full else self.CHUNK)):
            await store.save(chunk, durable=durable)
            self._unsynced = not durable
            self._clean(chunk)

    async def _rewrite_if_needed(self, store: DecisionStore) -> None:
        """If the file is a new one, or lacks changes: write everything in the cache to it in place of what it has.

        What is lasting is written in the transaction that empties it: after a crash, either the old rows are there or
        the new ones."""
        if not self._rewrite and self._generation == store.generation:
            return
        self._rewrite = True
        rows = dict(self._cache.items())
        first: Rows = {key: entry for key, entry in rows.items() if is_lasting(entry)}
        await store.replace(first)
        self._rewrite, self._generation, self._denies_waiting = False, store.generation, 0
        for key in rows.keys() - first.keys():
            self._cache.dirty.setdefault(key, rows[key])

    def _clean(self, saved: Rows) -> None:
        """These rows are on disk: they are not dirty any more, unless they have changed since."""
        dirty = self._cache.dirty
        for key, row in saved.items():
            if dirty.get(key, _NOTHING) is row:
                del dirty[key]

    def _drop_if_too_many(self) -> None:
        dirty = self._cache.dirty
        if len(dirty) - self._denies_waiting <= self.MOST_DIRTY:
            return
        denies = {key: row for key, row in dirty.items() if row is not None and is_protective(row)}
        dirty.clear()
        dirty.update(denies)
        self._denies_waiting = len(denies)
        self._rewrite = True
        self._outdated = True  # what has not been read yet lacks the changes dropped here; only its denies still count

    def _restore(self, remembered: Sequence[tuple[Key, Entry]]) -> None:
        """Take rows from disk into the cache, but not those of a purge that came while the disk was being read."""
        cache = self._cache
        for key in cache.restore_all(remembered):
            if cache.get(key) is None:
                cache.dirty[key] = None  # purged or dropped meanwhile: it must not come back at the next start either


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


_NOTHING = object()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection while entries are loaded: it would find nothing, and each run of it delays all answers by
    tens of milliseconds. The freeze at the end keeps what is loaded by then out of later full collections too."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.freeze()


def _settle(waiter: asyncio.Future[None], error: DiskError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
