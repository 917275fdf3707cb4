"""Accepted is kept: an event is on disk before it is acknowledged, and leaves it when the backend has taken it.

    accept(event) --many at once--> store.add, one synced commit --> acknowledged
    run():  schedule.take -> a room's turn: its events one after the other -> deliver -> mark, written behind
            delivered or rejected -> the next event;  anything else -> the room waits, longer each time

At least once: an event is marked after it was delivered, in a transaction of its own, so a crash between the two
delivers it again, with the same Idempotency-Key. Per room in order: a room has one turn at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

from sidecar.clock import Clock
from sidecar.core.events import ANSWER_KEPT, Limits, Listed, Mark, Marked, Numbers, Pending, Stock
from sidecar.core.model import Event, Failure, Misconfigured, Outcome, Rejected, Replied, Unavailable
from sidecar.core.schedule import Pacing, Schedule
from sidecar.errors import DiskError, OutboxFull
from sidecar.facts import Asked, Crashed, Emit, EventAccepted, EventDelivered, EventParked, Notice, OutboxChanged


class EventStore(Protocol):
    """What the outbox needs of the disk; everything raises DiskError."""

    @property
    def generation(self) -> int:
        """Grows whenever a new file was begun."""
        ...

    async def add(self, events: Sequence[Event]) -> list[bool]:
        """Write events, synced; for each, whether it was new."""
        ...

    async def page(self, room: str, after: int, most: int) -> list[Pending]:
        """A room's first events after a number."""
        ...

    async def mark(self, marks: Sequence[Mark], limits: Limits) -> Marked:
        """Write what became of events."""
        ...

    async def rooms(self, after: str, most: int) -> list[str]:
        """Rooms with events, by name."""
        ...

    async def stock(self) -> Stock:
        """Count everything."""
        ...

    async def listing(self, *, parked: bool, after: int, most: int) -> list[Listed]:
        """Events for an operator."""
        ...

    async def retry(self, numbers: Numbers) -> list[str]:
        """Let parked events wait again; the room of each."""
        ...

    async def drop(self, numbers: Numbers, *, parked: bool) -> int:
        """Throw events away."""
        ...


class Deliver(Protocol):
    """Tell the backend of an event. Never raises for the network, and takes no longer than so many seconds."""

    async def __call__(self, event: Event, seconds: float) -> Outcome:
        """What the backend made of it."""
        ...


class Outbox:
    """The events on their way. Counts are of what the backend has not yet taken."""

    PAGE = 8
    """Events a room may have in memory, and deliver before others have their turn."""
    BATCH = 256
    """Events in one commit."""
    MOST_WAITING = 1_024
    """Events that may wait for a commit; a disk that is slower than they come is no reason to pile them up."""
    MOST_UNMARKED = 1_000
    """Delivered events that may wait for a disk that takes no marks; beyond that nothing is delivered."""

    def __init__(
        self,
        store: EventStore,
        deliver: Deliver,
        *,
        clock: Clock,
        jitter: Callable[[], float],
        emit: Emit,
        limits: Limits,
        pacing: Pacing,
        timeout: float = 10.0,
        accept_within: float = 3.0,
    ) -> None:
        """`timeout`: seconds for one delivery; `accept_within`: seconds one who brings an event waits for the disk."""
        self._store = store
        self._deliver = deliver
        self._clock = clock
        self._jitter = jitter
        self._emit = emit
        self._limits = limits
        self._timeout = timeout
        self._accept_within = accept_within
        self._schedule = Schedule(pacing)
        self._stock = Stock()
        self._waiting: deque[tuple[Event, asyncio.Future[None]]] = deque()
        self._committer: asyncio.Task[None] | None = None
        self._marks: list[Mark] = []
        self._one_marks = asyncio.Lock()
        self._unmarked: dict[str, int] = {}
        self._pages: dict[str, deque[Pending]] = {}
        self._turns: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._marking = asyncio.Event()
        self._generation = store.generation
        self._full = False
        self._stopping = False
        self._counted = asyncio.Event()
        self._stopped = asyncio.Event()

    # ---- bringing events

    async def accept(self, event: Event) -> None:
        """Returns when the event is on disk, or was already. Raises OutboxFull or DiskError: then it is not ours."""
        future = self._enqueue(event)
        try:
            async with asyncio.timeout(self._accept_within):
                await future
        except TimeoutError:
            raise DiskError(f"the disk takes longer than {self._accept_within:g} s") from None

    def deliver_later(self, event: Event) -> None:
        """Take what was answered without the backend; what cannot be kept is said, the answer stands all the same."""
        try:
            self._enqueue(event).add_done_callback(lambda future: self._say_if_lost(event, future.exception()))
        except (OutboxFull, DiskError) as error:
            self._say_if_lost(event, error)

    def _say_if_lost(self, event: Event, error: BaseException | None) -> None:
        if error is not None:
            self._emit(EventParked(event.endpoint, event.room, None, f"not kept: {error}"))

    def _enqueue(self, event: Event) -> asyncio.Future[None]:
        if (reason := self._too_much(event)) is not None:
            if len(self._waiting) < self.MOST_WAITING and not self._full:
                self._full = True
                self._emit(OutboxChanged(full=True, reason=reason))
            raise OutboxFull(reason)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit())
        return future

    def _too_much(self, event: Event) -> str | None:
        limits = self._limits
        if len(self._waiting) >= self.MOST_WAITING:
            return f"{self.MOST_WAITING} events wait for the disk"
        if self._stock.pending + len(self._waiting) >= limits.max_events:
            return f"{limits.max_events} events wait for the backend"
        if self._stock.bytes + len(event.body) > limits.max_bytes:
            return f"{limits.max_bytes} bytes of events wait for the backend"
        return None

    def _note_space(self) -> None:
        """It is full until a tenth of it is empty: one alarm, not one with each event that is delivered."""
        stock, limits = self._stock, self._limits
        if self._full and stock.pending <= 0.9 * limits.max_events and stock.bytes <= 0.9 * limits.max_bytes:
            self._full = False
            self._emit(OutboxChanged(full=False))

    async def _commit(self) -> None:
        """Commit what waits; what comes in the meantime goes into the next commit together."""
        try:
            while self._waiting:
                taken = [self._waiting.popleft() for _ in range(min(self.BATCH, len(self._waiting)))]
                batch = [(event, future) for event, future in taken if not future.done()]
                try:
                    new = await self._store.add([event for event, _ in batch])
                except DiskError as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (event, future), is_new in zip(batch, new, strict=True):
                    if is_new:
                        self._accepted(event)
                    if not future.done():
                        future.set_result(None)
                self._wake.set()
        finally:
            self._committer = None

    def _accepted(self, event: Event) -> None:
        stock = self._stock
        self._stock = Stock(
            stock.pending + 1,
            stock.bytes + len(event.body),
            stock.parked,
            event.accepted_at if stock.oldest_at is None else stock.oldest_at,
        )
        self._schedule.add(event.room)
        self._emit(EventAccepted(event.endpoint, event.room))

    # ---- taking them to the backend

    async def run(self) -> None:
        """Deliver until stopped, or cancelled."""
        marker = asyncio.create_task(self._mark_behind())
        try:
            while not self._stopping:
                await self._take_stock()
                await self._pump()
            await self._stopped.wait()
        finally:
            for task in (marker, *self._turns):
                task.cancel()
            await asyncio.gather(marker, *self._turns, return_exceptions=True)

    async def counted(self, seconds: float) -> None:
        """Wait until it is known what an earlier process left, so that nobody reads that nothing waits; so long at
        most, since a disk that hangs is no reason not to start."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._counted.wait()

    async def stop(self, grace: float = 2.0) -> None:
        """Begin no delivery any more, give those under way `grace` seconds, and write their marks."""
        self._stopping = True
        self._wake.set()
        under_way = [*self._turns, *([] if self._committer is None else [self._committer])]
        if under_way:
            await asyncio.wait(under_way, timeout=grace)
        with contextlib.suppress(DiskError, TimeoutError):
            async with asyncio.timeout(grace):
                await self._write_marks()
        self._stopped.set()

    def nudge(self) -> None:
        """There is reason to believe that the backend is back: those who wait of their own accord try at once."""
        self._schedule.nudge()
        self._wake.set()

    async def _take_stock(self) -> None:
        """Learn what an earlier process left. Events that are accepted meanwhile are counted by this."""
        while not self._stopping:
            with contextlib.suppress(DiskError):
                after = ""
                while rooms := await self._store.rooms(after, 500):
                    for room in rooms:
                        self._schedule.add(room)
                    after = rooms[-1]
                await self._recount()
                self._generation = self._store.generation
                self._counted.set()
                return
            await asyncio.sleep(1.0)

    async def _pump(self) -> None:
        """Give out turns, until it is time to stop or a new file was begun."""
        while not self._stopping:
            self._wake.clear()
            if self._generation != self._store.generation:
                self._unmarked.clear()
                return
            now = self._clock.monotonic()
            while len(self._marks) < self.MOST_UNMARKED and (room := self._schedule.take(now)) is not None:
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
            page = deque(await self._store.page(room, self._unmarked.get(room, 0), self.PAGE))
        except DiskError:
            self._schedule.postponed(room, self._clock.monotonic() + 1.0)
            return
        more = len(page) == self.PAGE
        self._pages[room] = page
        try:
            while page and not self._stopping:
                pending = page[0]
                outcome = await self._try(room, pending)
                if page and page[0] is pending:  # else an operator dropped it meanwhile
                    if isinstance(outcome, Unavailable | Misconfigured) and not self._is_too_old(pending):
                        retry_after = outcome.retry_after if isinstance(outcome, Unavailable) else None
                        self._schedule.failed(room, self._clock.monotonic(), self._jitter(), retry_after)
                        return
                    page.popleft()
                    self._settle(room, pending, outcome)
            self._schedule.release(room, more=more or bool(page))
        finally:
            del self._pages[room]

    async def _try(self, room: str, pending: Pending) -> Outcome | None:
        """None: what is on disk is damaged, and was not sent."""
        if pending.damaged:
            return None
        event, begun = pending.event, self._clock.monotonic()
        outcome: Outcome
        try:
            async with asyncio.timeout(self._timeout + 1.0):
                outcome = await self._deliver(event, self._timeout)
        except TimeoutError:
            outcome = Unavailable("no answer in time", Failure.TIMEOUT)
        except Exception as error:  # noqa: BLE001  (a defect must not end the pump)
            self._emit(Crashed("outbox", error))
            outcome = Unavailable("a defect of the sidecar")
        reason = "" if isinstance(outcome, Replied | Rejected) else outcome.reason
        seconds, again = self._clock.monotonic() - begun, self._schedule.attempts(room) > 0
        name = type(outcome).__name__.lower()
        self._emit(Asked(event.endpoint, name, seconds, outcome.status, reason, room, again))
        return outcome

    def _is_too_old(self, pending: Pending) -> bool:
        return self._clock.wall() - pending.event.accepted_at > self._limits.max_age

    def _settle(self, room: str, pending: Pending, outcome: Outcome | None) -> None:
        """The event is done with: count it out, say so, and have it marked."""
        event = pending.event
        attempts = self._schedule.attempts(room) + 1
        reason, status, answer = _fate(outcome)
        mark = Mark(pending.number, pending.name, len(event.body), room, reason, status, answer[:ANSWER_KEPT])
        self._stock = _without(self._stock, mark)
        self._note_space()
        if isinstance(outcome, Replied | Rejected):
            self._schedule.succeeded(room)
        if reason is None:
            lag = max(0.0, self._clock.wall() - event.accepted_at)
            self._emit(EventDelivered(event.endpoint, room, attempts, lag))
        else:
            self._emit(EventParked(event.endpoint, room, status, reason))
        self._unmarked[room] = pending.number
        self._marks.append(mark)
        self._marking.set()

    async def _mark_behind(self) -> None:
        while True:
            await self._marking.wait()
            self._marking.clear()
            try:
                await self._write_marks()
            except DiskError:
                await asyncio.sleep(1.0)
                self._marking.set()

    async def _write_marks(self) -> None:
        async with self._one_marks:
            marks = tuple(self._marks)
            if not marks:
                return
            marked = await self._store.mark(marks, self._limits)
            del self._marks[: len(marks)]
            for mark in marks:
                if self._unmarked.get(mark.room) == mark.number:
                    del self._unmarked[mark.room]
        stock = self._stock
        self._stock = Stock(stock.pending, stock.bytes, stock.parked - marked.thrown_away, marked.oldest_at)
        if marked.thrown_away:
            self._emit(Notice(f"{marked.thrown_away} parked events were thrown away to make room", level="error"))
        self._wake.set()

    # ---- for operators

    def pending(self) -> int:
        """Events that wait."""
        return self._stock.pending

    def parked(self) -> int:
        """Events the backend will not take."""
        return self._stock.parked

    def oldest_age(self) -> float:
        """Seconds since the oldest waiting event was accepted; 0 when none waits."""
        oldest_at = self._stock.oldest_at
        return 0.0 if oldest_at is None else max(0.0, self._clock.wall() - oldest_at)

    async def listing(self, *, parked: bool, after: int = 0, most: int = 100) -> list[Listed]:
        """Events that wait, or are parked, in the order of acceptance. Raises DiskError."""
        return await self._store.listing(parked=parked, after=after, most=most)

    async def retry(self, numbers: Numbers) -> int:
        """Deliver parked events after all, behind their rooms' others; None: all. Raises DiskError."""
        rooms = await self._store.retry(numbers)
        for room in set(rooms):
            self._schedule.add(room)
        await self._recount()
        self._wake.set()
        return len(rooms)

    async def drop(self, numbers: Numbers, *, parked: bool = True) -> int:
        """Throw away events that are parked, or that wait; None: all of them. Raises DiskError."""
        dropped = await self._store.drop(numbers, parked=parked)
        if not parked:
            for page in self._pages.values():
                kept = [pending for pending in page if numbers is not None and pending.number not in numbers]
                page.clear()
                page.extend(kept)
        await self._recount()
        return dropped

    async def _recount(self) -> None:
        async with self._one_marks:
            stock = await self._store.stock()
            for mark in self._marks:  # done with, but on disk they are not yet
                stock = _without(stock, mark)
            self._stock = stock
        self._note_space()


def _without(stock: Stock, mark: Mark) -> Stock:
    parked = stock.parked + (mark.reason is not None)
    return Stock(max(0, stock.pending - 1), max(0, stock.bytes - mark.size), parked, stock.oldest_at)


def _fate(outcome: Outcome | None) -> tuple[str | None, int | None, bytes]:
    """Why an event that is done with is parked (None: it is delivered), with what status and answer."""
    match outcome:
        case Replied():
            return None, outcome.status, b""
        case Rejected():
            return f"the backend answered {outcome.status}", outcome.status, outcome.body
        case Unavailable() | Misconfigured():
            return f"too old: {outcome.reason}", outcome.status, b""
        case None:
            return "damaged on disk", None, b""
        case _:
            assert_never(outcome)
