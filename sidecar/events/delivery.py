"""The pump: takes events to the backend, in order within a room, rooms beside each other.

    schedule.take -> a room's turn: its events one after the other -> deliver -> counted out, marked behind
    delivered or rejected -> the next event;  anything else -> the room waits, longer each time

At least once: an event is marked after it was delivered, in a transaction of its own, so a crash between the two
delivers it again, with the same Idempotency-Key. Per room in order: a room has one turn at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from sidecar.clock import Clock
from sidecar.core.delivery_schedule import Schedule
from sidecar.core.events import Numbers, Pending
from sidecar.core.model import Failure, Misconfigured, Outcome, Rejected, Replied, Unavailable
from sidecar.errors import DiskError
from sidecar.events.attempts import Attempts
from sidecar.events.backlog import Backlog
from sidecar.events.marks import Marks, mark_of
from sidecar.facts import Emit, EventDelivered, EventParked


class WaitingEvents(Protocol):
    """What delivery needs of the disk; everything raises DiskError."""

    @property
    def generation(self) -> int:
        """Grows whenever a new file was begun."""
        ...

    async def page(self, room: str, after: int, most: int) -> list[Pending]:
        """A room's first events after a number."""
        ...

    async def rooms(self, after: str, most: int) -> list[str]:
        """Rooms with events, by name."""
        ...


class Delivery:
    """Takes what waits on disk to the backend."""

    PAGE = 8
    """Events a room may have in memory, and deliver before others have their turn."""

    def __init__(
        self,
        store: WaitingEvents,
        attempts: Attempts,
        schedule: Schedule,
        marks: Marks,
        backlog: Backlog,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        emit: Emit,
        max_age: float,
    ) -> None:
        """`max_age`: seconds after which an event that could not be delivered, and cannot be once more, is parked."""
        self._store = store
        self._attempts = attempts
        self._schedule = schedule
        self._marks = marks
        self._backlog = backlog
        self._clock = clock
        self._jitter = jitter
        self._emit = emit
        self._max_age = max_age
        self._pages: dict[str, deque[Pending]] = {}
        self._turns: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._generation = store.generation
        self._stopping = False
        self._stopped = asyncio.Event()

    @property
    def turns(self) -> int:
        """Rooms that have their turn now."""
        return len(self._turns)

    def add(self, rooms: Iterable[str]) -> None:
        """The disk was written to, and each of these rooms has more to deliver; if none has, the file may be new."""
        for room in rooms:
            self._schedule.add(room)
        self._wake.set()

    def withdraw(self, numbers: Numbers) -> None:
        """These are no longer on disk (None: none is): those that are in memory are not sent either."""
        for page in self._pages.values():
            kept = [pending for pending in page if numbers is not None and pending.number not in numbers]
            page.clear()
            page.extend(kept)

    def nudge(self) -> None:
        """There is reason to believe that the backend is back: those who wait of their own accord try at once."""
        self._schedule.nudge()
        self._wake.set()

    async def run(self) -> None:
        """Deliver until stopped, or cancelled."""
        marker = asyncio.create_task(self._mark_behind())
        try:
            while not self._stopping:
                await self._find_rooms()
                await self._pump()
            await self._stopped.wait()
        finally:
            for task in (marker, *self._turns):
                task.cancel()
            await asyncio.gather(marker, *self._turns, return_exceptions=True)

    async def stop(self, grace: float = 2.0) -> None:
        """Begin no delivery any more, give those under way `grace` seconds, and write their marks."""
        self._stopping = True
        self._wake.set()
        if self._turns:
            await asyncio.wait([*self._turns], timeout=grace)
        with contextlib.suppress(DiskError, TimeoutError):
            async with asyncio.timeout(grace):
                while self._marks.unwritten:
                    await self._write_marks()
        self._stopped.set()

    async def _find_rooms(self) -> None:
        """Learn what an earlier process left. Events that are accepted meanwhile are counted by this."""
        while not self._stopping:
            with contextlib.suppress(DiskError):
                after = ""
                while rooms := await self._store.rooms(after, 500):
                    for room in rooms:
                        self._schedule.add(room)
                    after = rooms[-1]
                await self._backlog.recount()
                self._generation = self._store.generation
                return
            await asyncio.sleep(1.0)

    async def _pump(self) -> None:
        """Give out turns, until it is time to stop or a new file was begun."""
        while not self._stopping:
            self._wake.clear()
            if self._generation != self._store.generation:
                self._marks.forget_numbers()
                return
            now = self._clock.monotonic()
            while not self._marks.full and (room := self._schedule.take(now)) is not None:
                turn = asyncio.create_task(self._turn(room))
                self._turns.add(turn)
                turn.add_done_callback(self._turn_over)
            wake_at = self._schedule.wake_at()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - now)):
                    await self._wake.wait()

    def _turn_over(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        self._wake.set()

    async def _turn(self, room: str) -> None:
        try:
            page = deque(await self._store.page(room, self._marks.last(room), self.PAGE))
        except DiskError:
            self._schedule.postponed(room, self._clock.monotonic() + 1.0)
            return
        more = len(page) == self.PAGE
        self._pages[room] = page
        try:
            while page and not self._stopping:
                if not await self._first(room, page):
                    return
            self._schedule.release(room, more=more or bool(page))
        finally:
            del self._pages[room]

    async def _first(self, room: str, page: deque[Pending]) -> bool:
        """Deliver the first event of a page. False: it could not be delivered, and the room has to wait."""
        pending = page[0]
        outcome = await self._attempts.make(room, pending, again=self._schedule.attempts(room) > 0)
        if not page or page[0] is not pending:  # an operator dropped it meanwhile
            return True
        if isinstance(outcome, Unavailable | Misconfigured) and not self._is_too_old(pending):
            if isinstance(outcome, Unavailable) and outcome.failure is Failure.OURS:
                self._schedule.postponed(room, self._clock.monotonic() + 1.0)
                return False
            retry_after = outcome.retry_after if isinstance(outcome, Unavailable) else None
            self._schedule.failed(room, self._clock.monotonic(), self._jitter(), retry_after)
            return False
        page.popleft()
        self._settle(room, pending, outcome)
        return True

    def _is_too_old(self, pending: Pending) -> bool:
        return self._clock.monotonic() - pending.since > self._max_age

    def _settle(self, room: str, pending: Pending, outcome: Outcome | None) -> None:
        """The event is done with: count it out, say so, and have it marked."""
        event, attempts = pending.event, self._schedule.attempts(room) + 1
        mark = mark_of(room, pending, outcome)
        self._backlog.done(mark)
        if isinstance(outcome, Replied | Rejected):
            self._schedule.succeeded(room)
        if mark.reason is None:
            lag = max(0.0, self._clock.monotonic() - pending.since)
            self._emit(EventDelivered(event.endpoint, room, attempts, lag))
        else:
            self._emit(EventParked(event.endpoint, room, mark.status, mark.reason))
        self._marks.add(mark)

    async def _mark_behind(self) -> None:
        while True:
            await self._marks.some()
            try:
                await self._write_marks()
            except DiskError:
                await asyncio.sleep(1.0)

    async def _write_marks(self) -> None:
        marked = await self._marks.write()
        if marked is not None:  # nothing is awaited since, so a recount comes after this
            self._backlog.marked(marked)
            self._wake.set()
