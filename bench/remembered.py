"""Many decisions: on disk, loaded from there as at a start, and removed when the cache is full.

`python -m bench.remembered FOLDER ENTRIES` loads what `fill` has written, in a process with nothing else in its memory,
and prints the cost as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from sidecar.clock import SystemClock
from sidecar.core.model import Endpoint, Entry, Key, Lifetimes, Verdict
from sidecar.decisions.cache import Cache
from sidecar.decisions.cache import Limits as CacheLimits
from sidecar.decisions.write_behind import WriteBehind
from sidecar.facts import Fact
from sidecar.store import Store, read_boot_id

IN_A_ROOM = 10
"""Users of a room; the first one is denied."""

BODY = b'{"allowed":true,"reason":null}'
LIFETIMES = Lifetimes(86_400, 0, 86_400)
BATCH = 5_000
EVICTIONS = 20_000


@dataclass(frozen=True, slots=True)
class Load:
    """Times are seconds. The waits are the longest times for which the event loop was blocked."""

    entries: int
    seconds: float
    wait: float
    resident: int
    """Bytes of all entries, with everything that was needed to load them."""
    eviction: float
    eviction_wait: float


@dataclass
class Longest:
    """How long other work on the event loop had to wait."""

    seconds: float = 0.0


def ignore(fact: Fact) -> None:
    """Does nothing."""


def key_of(number: int) -> Key:
    """The user with this number; parts of a key are JSON, so that 1 is not "1"."""
    room = f"room-{number // IN_A_ROOM}"
    room_jid = f'"{room}@conference.example.com"'
    return Key(Endpoint.VALIDATE_ACCESS, room, room_jid, None, f"jid user-{number}@example.com")


def entry_of(number: int, now: float) -> Entry:
    """The cached answer for this user. A deny is older than the room's allows, or it would make them suspect."""
    verdict, at = (Verdict.ALLOW, now) if number % IN_A_ROOM else (Verdict.DENY, now - 60.0)
    return Entry(verdict, BODY, at, at, LIFETIMES, 0.5)


async def fill(folder: Path, entries: int) -> None:
    """Write decisions to disk, as the sidecar does."""
    clock = SystemClock()
    now = clock.monotonic()
    async with Store(folder, clock, read_boot_id(), ignore) as store:
        assert store.decisions is not None
        for start in range(0, entries, BATCH):
            numbers = range(start, min(entries, start + BATCH))
            await store.decisions.save({key_of(number): entry_of(number, now) for number in numbers})


async def loaded(folder: Path, entries: int) -> Load:
    """A start, and then more answers than the cache can hold: the limit is the number of entries."""
    denies = entries // IN_A_ROOM
    async with Store(folder, SystemClock(), read_boot_id(), ignore) as store:
        cache = Cache(CacheLimits(allows=entries - denies, denies=denies))
        writer = WriteBehind(cache, store.decisions)
        before, begun = _resident(), time.perf_counter()
        async with _looking() as wait:
            await writer.load()
        seconds, resident, found = time.perf_counter() - begun, _resident() - before, len(cache)
        eviction, eviction_wait = await _evict(cache, entries)
        return Load(found, seconds, wait.seconds, resident, eviction, eviction_wait.seconds)


async def _evict(cache: Cache, entries: int) -> tuple[float, Longest]:
    now, took = time.monotonic(), 0.0
    async with _looking() as wait:
        for number in range(entries, entries + EVICTIONS):
            begun = time.perf_counter()
            cache.put(key_of(number), entry_of(number, now))
            took += time.perf_counter() - begun
            if len(cache.dirty) > BATCH:
                cache.dirty.clear()  # as if they had been written
            await asyncio.sleep(0)
    return took / EVICTIONS, wait


@asynccontextmanager
async def _looking() -> AsyncIterator[Longest]:
    longest = Longest()

    async def look() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest.seconds = max(longest.seconds, time.perf_counter() - before - 0.001)

    looking = asyncio.create_task(look())
    try:
        yield longest
        await asyncio.sleep(0.002)  # a wait that has not ended counts too
    finally:
        looking.cancel()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(loaded(Path(sys.argv[1]), int(sys.argv[2]))))))
