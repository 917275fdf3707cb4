"""Parts of the tests that touch a disk: a clock that is set by hand, what was emitted, stores, bounded waits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.clock import Clock, SystemClock
from sidecar.core.model import Entry, Key, Lifetimes, Verdict
from sidecar.facts import Fact
from sidecar.store.database import Database
from sidecar.store.decisions import LAYOUT as DECISIONS
from sidecar.store.decisions import Decisions
from sidecar.store.events import LAYOUT as OUTBOX
from sidecar.store.events import Events
from tests.unit import builders


@dataclass
class FakeClock:
    """Both clocks of one boot, set by hand."""

    boottime: float = 1_000.0
    unix: float = 1_700_000_000.0

    def monotonic(self) -> float:
        """CLOCK_BOOTTIME."""
        return self.boottime

    def wall(self) -> float:
        """Unix seconds."""
        return self.unix

    def pass_by(self, seconds: float) -> None:
        """Let time go by."""
        self.boottime += seconds
        self.unix += seconds


@dataclass
class SteppedClock:
    """The clocks of this machine, but for what a test has let pass, and by how much it has set the wall clock ahead."""

    passed: float = 0.0
    ahead: float = 0.0

    def monotonic(self) -> float:
        """CLOCK_BOOTTIME."""
        return SystemClock().monotonic() + self.passed

    def wall(self) -> float:
        """Unix seconds."""
        return SystemClock().wall() + self.passed + self.ahead


@dataclass
class Facts:
    """What was emitted."""

    all: list[Fact] = field(default_factory=list)

    def __call__(self, fact: Fact) -> None:
        """Observe."""
        self.all.append(fact)

    def of(self, kind: type[Fact]) -> list[Fact]:
        """Those of one kind."""
        return [fact for fact in self.all if isinstance(fact, kind)]

    def names(self) -> list[str]:
        """Their kinds, in order."""
        return [type(fact).__name__ for fact in self.all]


def an_entry(
    verdict: Verdict = Verdict.ALLOW, *, asked_at: float = 1_000.0, stale_if_error: float = 3600.0, body: bytes = b""
) -> Entry:
    """A remembered answer with a value in every column; of the moment at which `FakeClock` begins."""
    lifetimes = Lifetimes(15.0, 15.0, stale_if_error)
    return builders.an_entry(
        verdict, asked_at=asked_at, settled_at=asked_at + 0.125, lifetimes=lifetimes, spread=0.25, body=body
    )


@contextlib.asynccontextmanager
async def decisions(
    folder: Path, clock: FakeClock, facts: Facts | None = None, boot: str = "boot-1", retry_every: float = 0.01
) -> AsyncIterator[Decisions]:
    """The decisions in a folder, as one process sees them."""
    emit = facts or Facts()
    database = Database(folder, DECISIONS, clock, emit, retry_every=retry_every)
    try:
        yield Decisions(database, clock, boot, emit)
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def events(
    folder: Path | None, clock: Clock, facts: Facts | None = None, boot: str = "boot-1", retry_every: float = 0.01
) -> AsyncIterator[Events]:
    """The events in a folder, as one process sees them."""
    database = Database(folder, OUTBOX, clock, facts or Facts(), retry_every=retry_every)
    try:
        yield Events(database, clock, boot)
    finally:
        await database.close()


async def loaded(store: Decisions, batch: int = 500) -> dict[Key, Entry]:
    """Everything the disk remembers."""
    found = {key: entry async for entries in store.first(batch) for key, entry in entries}
    return found | {key: entry async for entries in store.load(batch) for key, entry in entries}


async def until(holds: Callable[[], object], within: float = 5.0) -> None:
    """Wait for something to become true; fails if it does not in time."""
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.002)


def by_hand(folder: Path, name: str, statement: str, *values: Any) -> list[Any]:
    """What another program sees or does in the file."""
    connection = sqlite3.connect(folder / name)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()
