"""What became of events, kept until it is on disk: marks are written behind the deliveries, many at a time.

    delivered or parked --add--> unwritten --write, one transaction--> on disk

Until then the disk still shows the event as one that waits, and `last` says which of a room's events are done with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Protocol, assert_never

from sidecar.core.events import ANSWER_KEPT, Limits, Mark, Marked, Pending
from sidecar.core.model import Misconfigured, Outcome, Rejected, Replied, Unavailable


class MarkStore(Protocol):
    """What marks need of the disk."""

    @property
    def full(self) -> bool:
        """Whether the disk is full: only a few short marks at a time can be written."""
        ...

    async def mark(self, marks: Sequence[Mark], limits: Limits) -> Marked:
        """Write what became of events. Raises DiskError."""
        ...


class Marks:
    """The marks that are not on disk yet, in the order they were made."""

    MOST = 1_000
    """Marks that may wait for a disk that takes none; beyond that nothing is delivered."""
    BYTES_AT_ONCE = 1024 * 1024
    """Bodies that are deleted in one transaction. Their pages are overwritten, so as much is written as is deleted."""
    FULL_DISK = 16, 256 * 1024
    """Marks and bytes in one transaction on a full disk: what the reserve of the store is made for."""

    def __init__(self, store: MarkStore, limits: Limits) -> None:
        """None yet."""
        self.unwritten: list[Mark] = []
        self.writing = asyncio.Lock()
        """Held while marks are written; also by those who compare the disk with `unwritten`."""
        self._store = store
        self._limits = limits
        self._last: dict[str, int] = {}
        self._some = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return len(self.unwritten) >= self.MOST

    def add(self, mark: Mark) -> None:
        """One more, to be written soon."""
        self._last[mark.room] = mark.number
        self.unwritten.append(mark)
        self._some.set()

    def last(self, room: str) -> int:
        """The number of the last event of a room that has a mark here; 0 if none has."""
        return self._last.get(room, 0)

    def forget_numbers(self) -> None:
        """A new file was begun, which may use lower numbers."""
        self._last.clear()

    async def some(self) -> None:
        """Wait until there is something to write."""
        await self._some.wait()

    async def write(self) -> Marked | None:
        """Write the first of them; None if there are none. Raises DiskError: then they stay here."""
        async with self.writing:
            marks = self._next()
            if not marks:
                return None
            marked = await self._store.mark(marks, self._limits)
            del self.unwritten[: len(marks)]
            for mark in marks:
                if self._last.get(mark.room) == mark.number:
                    del self._last[mark.room]
            if not self.unwritten:
                self._some.clear()
        return marked

    def _next(self) -> list[Mark]:
        """As many as may be written at once. On a full disk, a parked event is kept without the backend's answer: then
        it takes no more space than while it waited."""
        full = self._store.full
        most, most_bytes = self.FULL_DISK if full else (self.MOST, self.BYTES_AT_ONCE)
        sizes = accumulate(mark.size for mark in self.unwritten[:most])
        count = max(1, sum(size <= most_bytes for size in sizes))
        marks = self.unwritten[:count]
        return [replace(mark, answer=b"") for mark in marks] if full else marks


def mark_of(room: str, pending: Pending, outcome: Outcome | None) -> Mark:
    """What became of an event that is done with; no outcome: it was damaged on disk, and was not sent."""
    reason, answer = _fate(outcome)
    status = None if outcome is None else outcome.status
    return Mark(pending.number, pending.name, len(pending.event.body), room, reason, status, answer[:ANSWER_KEPT])


def _fate(outcome: Outcome | None) -> tuple[str | None, bytes]:
    """Why it is parked (None: it is delivered), and what the backend answered."""
    match outcome:
        case Replied():
            return None, b""
        case Rejected():
            return f"the backend answered {outcome.status}", outcome.body
        case Unavailable() | Misconfigured():
            return f"too old: {outcome.reason}", b""
        case None:
            return "damaged on disk", b""
        case _:
            assert_never(outcome)
