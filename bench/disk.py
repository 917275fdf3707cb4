"""Part `disk`: the cost of an event that is on disk before it is acknowledged, compared with SQLite alone on the same
disk in the same run. SQLite alone syncs one event in each commit; the outbox syncs many.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from bench.remembered import ignore
from bench.sample import Sample
from sidecar.clock import SystemClock
from sidecar.core.delivery_schedule import Pacing, Schedule
from sidecar.core.events import Limits
from sidecar.core.model import Endpoint, Event, Outcome, Unavailable
from sidecar.events.attempts import Attempts
from sidecar.events.backlog import Backlog
from sidecar.events.delivery import Delivery
from sidecar.events.marks import Marks
from sidecar.events.outbox import Outbox
from sidecar.store import Store, read_boot_id

BODY = b'{"roomName":"standup","userJid":"ann@example.com","timestamp":1700000000}'
ALONE = "SQLite alone, a synced commit each"
AT_ONCE = {f"outbox, {count} at once": count for count in (1, 8, 64)}
ROWS = (ALONE, *AT_ONCE)


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Sample]:
    """On the disk of the temporary files."""
    seconds = 0.5 if quick else 2.0
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="prosody-sidecar-disk-") as name:
            say(f"disk, round {number + 1}: {ALONE}")
            yield Sample("disk", "events", ALONE, "events/s", bare_commits(Path(name), seconds), number)
            for who, at_once in AT_ONCE.items():
                say(f"disk, round {number + 1}: {who}")
                rate = await accepted(Path(name) / str(at_once), seconds, at_once)
                yield Sample("disk", "events", who, "events/s", rate, number)


def bare_commits(folder: Path, seconds: float) -> float:
    """Rows a second, each in its own synced transaction, without other code."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, room TEXT, body BLOB)")
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        connection.execute("INSERT INTO events (room, body) VALUES ('standup', ?)", (BODY,))
        done += 1
    connection.close()
    return done / seconds


async def accepted(folder: Path, seconds: float, at_once: int) -> float:
    """Events a second that are accepted and on disk, with this number of clients that each wait."""
    clock = SystemClock()

    async def away(event: Event, seconds: float) -> Outcome:
        return Unavailable("not now")

    async with Store(folder, clock, read_boot_id(), ignore) as store:
        limits = Limits(max_events=10_000_000, max_bytes=2**40)
        marks = Marks(store.events, limits)
        backlog = Backlog(store.events, marks, limits, clock, ignore)
        delivery = Delivery(
            store.events,
            Attempts(away, clock, ignore),
            Schedule(Pacing()),
            marks,
            backlog,
            clock=clock,
            jitter=lambda: 0.0,
            emit=ignore,
            max_age=limits.max_age,
        )
        outbox = Outbox(store.events, backlog, delivery, ignore, accept_within=30.0)
        done, until = 0, time.perf_counter() + seconds

        async def bring(who: int) -> None:
            nonlocal done
            number = 0
            while time.perf_counter() < until:
                number += 1
                key = f"{at_once}/{who}/{number}"
                await outbox.accept(Event(Endpoint.USER_JOINED, f"room-{who}", BODY, key, clock.wall()))
                done += 1

        await asyncio.gather(*(bring(who) for who in range(at_once)))
        return done / seconds
