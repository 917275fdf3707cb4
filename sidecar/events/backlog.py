"""The counts: how many events wait and are parked, how old the oldest is, and whether one more may come.

    what is on disk  -  what is done with but not marked there yet  =  what waits

Counted at the start and after an operator's order; in between, each event that comes or is done with changes the
counts by one.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from sidecar.clock import Clock
from sidecar.core.events import Limits, Mark, Marked, Stock
from sidecar.core.model import Event
from sidecar.errors import OutboxFull
from sidecar.events.marks import Marks
from sidecar.facts import Emit, Notice, OutboxChanged


class CountingStore(Protocol):
    """What the counts need of the disk."""

    async def stock(self) -> Stock:
        """Count everything. Raises DiskError."""
        ...


class Backlog:
    """How much there is of what the backend has not taken."""

    def __init__(self, store: CountingStore, marks: Marks, limits: Limits, clock: Clock, emit: Emit) -> None:
        """Nothing is known yet of what an earlier process left."""
        self._store = store
        self._marks = marks
        self._limits = limits
        self._clock = clock
        self._emit = emit
        self._stock = Stock()
        self._full = False
        self._counted = asyncio.Event()

    def pending(self) -> int:
        """Events that wait."""
        return self._stock.pending

    def parked(self) -> int:
        """Events the backend will not take."""
        return self._stock.parked

    def oldest_age(self) -> float:
        """Seconds since the oldest waiting event was accepted; 0 when none waits."""
        oldest_at = self._stock.oldest_at
        return 0.0 if oldest_at is None else max(0.0, self._clock.monotonic() - oldest_at)

    def check_space(self, event: Event, uncounted: int) -> None:
        """Raise OutboxFull if this one would be too much; `uncounted`: events that came before it and are on their
        way to the disk."""
        if (reason := self._too_much(event, uncounted)) is None:
            return
        if not self._full:
            self._full = True
            self._emit(OutboxChanged(full=True, reason=reason))
        raise OutboxFull(reason)

    def _too_much(self, event: Event, uncounted: int) -> str | None:
        limits = self._limits
        if self._stock.pending + uncounted >= limits.max_events:
            return f"{limits.max_events} events wait for the backend"
        if self._stock.bytes + len(event.body) > limits.max_bytes:
            return f"{limits.max_bytes} bytes of events wait for the backend"
        return None

    def accepted(self, event: Event) -> None:
        """One more is on disk."""
        stock = self._stock
        oldest_at = self._clock.monotonic() if stock.oldest_at is None else stock.oldest_at
        self._stock = Stock(stock.pending + 1, stock.bytes + len(event.body), stock.parked, oldest_at)

    def done(self, mark: Mark) -> None:
        """One is delivered or parked, whether the disk knows it or not."""
        self._stock = _without(self._stock, mark)
        self._note_space()

    def marked(self, marked: Marked) -> None:
        """The disk knows what `done` was called for, and says what follows from it."""
        stock = self._stock
        self._stock = Stock(stock.pending, stock.bytes, stock.parked - marked.thrown_away, marked.oldest_at)
        if marked.thrown_away:
            self._emit(Notice(f"{marked.thrown_away} parked events were thrown away to make room", level="error"))

    async def recount(self) -> None:
        """Count what is on disk. Raises DiskError."""
        async with self._marks.writing:
            stock = await self._store.stock()
            for mark in self._marks.unwritten:
                stock = _without(stock, mark)
            self._stock = stock
        self._note_space()
        self._counted.set()

    async def counted(self, seconds: float) -> None:
        """Wait until it is known what an earlier process left, so that nobody reads that nothing waits; so long at
        most, since a disk that hangs is no reason not to start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._counted.wait()

    def _note_space(self) -> None:
        """It is full until a tenth of it is empty: one alarm, not one with each event that is delivered."""
        stock, limits = self._stock, self._limits
        if self._full and stock.pending <= 0.9 * limits.max_events and stock.bytes <= 0.9 * limits.max_bytes:
            self._full = False
            self._emit(OutboxChanged(full=False))


def _without(stock: Stock, mark: Mark) -> Stock:
    parked = stock.parked + (mark.reason is not None)
    return Stock(max(0, stock.pending - 1), max(0, stock.bytes - mark.size), parked, stock.oldest_at)
