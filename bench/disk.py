"""`python -m bench.disk`: what the disk costs, beside what SQLite costs alone on the same disk in the same run.

Accepted events are synced one commit at a time by the bare row, and many at a time by the outbox. Decisions are loaded
as at start, while something else on the event loop looks how long it is kept waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sidecar.cache import Cache
from sidecar.cache import Limits as CacheLimits
from sidecar.clock import SystemClock
from sidecar.core.model import Endpoint, Entry, Event, Key, Lifetimes, Outcome, Unavailable, Verdict
from sidecar.core.outbox import Limits
from sidecar.core.schedule import Pacing
from sidecar.outbox import Outbox
from sidecar.signals import Fact
from sidecar.store import Store, read_boot_id
from sidecar.writer import Writer

BODY = b'{"roomName":"standup","userJid":"ann@example.com","timestamp":1700000000}'
AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Load:
    """How long it took to read everything, and how long the event loop was kept waiting at the most."""

    entries: int
    wall: float
    cpu: float
    longest_wait: float


def ignore(fact: Fact) -> None:
    """Nobody looks."""


def bare_commits(folder: Path, seconds: float) -> float:
    """Rows a second, each in a synced transaction of its own, with nothing around it."""
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
    """Events a second that are accepted durably, by so many who each wait for theirs."""
    clock = SystemClock()

    async def away(event: Event, seconds: float) -> Outcome:
        return Unavailable("not now")

    async with Store(folder, clock, read_boot_id(), ignore) as store:
        outbox = Outbox(
            store.events,
            away,
            clock=clock,
            jitter=lambda: 0.0,
            emit=ignore,
            limits=Limits(max_events=10_000_000, max_bytes=2**40),
            pacing=Pacing(),
            accept_within=30.0,
        )
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


async def fill(folder: Path, entries: int) -> None:
    """Decisions of as many users, ten to a room, one of them kept out."""
    clock = SystemClock()
    lifetimes, now = Lifetimes(15, 15, 3600), clock.monotonic()
    async with Store(folder, clock, read_boot_id(), ignore) as store:
        assert store.decisions is not None
        for start in range(0, entries, 2_000):
            rows: dict[Key, Entry | None] = {}
            for number in range(start, min(entries, start + 2_000)):
                room, verdict = f"room-{number // 10}", Verdict.ALLOW if number % 10 else Verdict.DENY
                key = Key(
                    Endpoint.VALIDATE_ACCESS, room, f"{room}@muc.example.com", None, f"jid user-{number}@example.com"
                )
                rows[key] = Entry(verdict, b'{"allowed":true,"reason":null}', now, now, lifetimes, 0.5)
            await store.decisions.save(rows)


async def loaded(folder: Path) -> Load:
    """What a start does."""
    async with Store(folder, SystemClock(), read_boot_id(), ignore) as store:
        cache = Cache(CacheLimits())
        writer = Writer(cache, store.decisions)
        longest = 0.0

        async def look() -> None:
            nonlocal longest
            while not writer.loaded:
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                longest = max(longest, time.perf_counter() - before - 0.001)

        looking = asyncio.create_task(look())
        wall, cpu = time.perf_counter(), time.process_time()
        await writer.load()
        figures = Load(len(cache), time.perf_counter() - wall, time.process_time() - cpu, longest)
        await looking
        return figures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.disk", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row of events (default 3)")
    parser.add_argument("--entries", type=int, default=100_000, help="decisions to load (default 100000)")
    parser.add_argument("--folder", type=Path, help="on the disk in question (default: the folder for temporary files)")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="prosody-sidecar-disk-", dir=arguments.folder))
    try:
        bare = bare_commits(folder, arguments.seconds)
        console.print(f"SQLite alone, a synced commit each   {bare:8.0f} a second")
        for at_once in (1, 8, AT_ONCE):
            rate = asyncio.run(accepted(folder / str(at_once), arguments.seconds, at_once))
            console.print(
                f"events accepted, {at_once:3} at once         {rate:8.0f} a second   {rate / bare:5.2f} of that"
            )
        asyncio.run(fill(folder / "decisions", arguments.entries))
        for _ in range(3):
            load = asyncio.run(loaded(folder / "decisions"))
            console.print(
                f"{load.entries} decisions loaded in {load.wall:.2f} s ({load.cpu:.2f} s of processor time), "
                f"the event loop waited {load.longest_wait * 1000:.0f} ms at most"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
