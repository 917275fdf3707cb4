"""Accepted is kept: an event is on disk before it is acknowledged. And the operator's desk: list, retry, drop.

    accept(event) --many at once--> store.add, one synced commit --> acknowledged, and its room has one more to deliver

`delivery` takes what is on disk to the backend, `marks` writes down what became of it, `backlog` counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Protocol

from sidecar.core.events import Listed, Numbers
from sidecar.core.model import Event
from sidecar.errors import DiskError, OutboxFull
from sidecar.events.backlog import Backlog
from sidecar.events.delivery import Delivery
from sidecar.facts import Emit, EventAccepted, EventParked

Brought = tuple[Event, asyncio.Future[None]]
"""An event, and who waits for it to be on disk."""


class EventStore(Protocol):
    """What the outbox needs of the disk; everything raises DiskError."""

    async def add(self, events: Sequence[Event]) -> list[bool]:
        """Write events, synced; for each, whether it was new."""
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


class Outbox:
    """Where events are brought, and where operators look after them."""

    BATCH = 256
    """Events in one commit."""
    BATCH_BYTES = 512 * 1024
    """Bodies in one commit, unless it is a single event: the reserve of the store covers no more."""
    MOST_WAITING = 1_024
    """Events that may wait for a commit; a disk that is slower than they come is no reason to pile them up."""

    def __init__(
        self, store: EventStore, backlog: Backlog, delivery: Delivery, emit: Emit, *, accept_within: float = 3.0
    ) -> None:
        """`accept_within`: seconds one who brings an event waits for the disk."""
        self._store = store
        self._backlog = backlog
        self._delivery = delivery
        self._emit = emit
        self._accept_within = accept_within
        self._waiting: deque[Brought] = deque()
        self._committer: asyncio.Task[None] | None = None

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

    async def flush(self, grace: float = 2.0) -> None:
        """Wait until nothing waits for a commit; at most `grace` seconds."""
        if self._committer is not None:
            await asyncio.wait([self._committer], timeout=grace)

    def _say_if_lost(self, event: Event, error: BaseException | None) -> None:
        if error is not None:
            self._emit(EventParked(event.endpoint, event.room, None, f"not kept: {error}"))

    def _enqueue(self, event: Event) -> asyncio.Future[None]:
        if len(self._waiting) >= self.MOST_WAITING:
            raise OutboxFull(f"{self.MOST_WAITING} events wait for the disk")
        self._backlog.check_space(event, uncounted=len(self._waiting))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, future))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit())
        return future

    async def _commit(self) -> None:
        """Commit what waits; what comes in the meantime goes into the next commit together."""
        try:
            while self._waiting:
                sizes = accumulate(len(event.body) for event, _ in islice(self._waiting, self.BATCH))
                count = max(1, sum(size <= self.BATCH_BYTES for size in sizes))
                taken = [self._waiting.popleft() for _ in range(count)]
                await self._commit_batch([(event, future) for event, future in taken if not future.done()])
        finally:
            self._committer = None

    async def _commit_batch(self, batch: Sequence[Brought]) -> None:
        try:
            new = await self._store.add([event for event, _ in batch])
        except DiskError as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (event, future), is_new in zip(batch, new, strict=True):
            if is_new:
                self._backlog.accepted(event)
                self._emit(EventAccepted(event.endpoint, event.room))
            if not future.done():
                future.set_result(None)
        self._delivery.add(event.room for (event, _), is_new in zip(batch, new, strict=True) if is_new)

    # ---- for operators

    def pending(self) -> int:
        """Events that wait."""
        return self._backlog.pending()

    def parked(self) -> int:
        """Events the backend will not take."""
        return self._backlog.parked()

    def oldest_age(self) -> float:
        """Seconds since the oldest waiting event was accepted; 0 when none waits."""
        return self._backlog.oldest_age()

    async def listing(self, *, parked: bool, after: int = 0, most: int = 100) -> list[Listed]:
        """Events that wait, or are parked, in the order of acceptance. Raises DiskError."""
        return await self._store.listing(parked=parked, after=after, most=most)

    async def retry(self, numbers: Numbers) -> int:
        """Deliver parked events after all, behind their rooms' others; None: all. Raises DiskError."""
        rooms = await self._store.retry(numbers)
        self._delivery.add(set(rooms))
        await self._backlog.recount()
        return len(rooms)

    async def drop(self, numbers: Numbers, *, parked: bool = True) -> int:
        """Throw away events that are parked, or that wait; None: all of them. Raises DiskError."""
        dropped = await self._store.drop(numbers, parked=parked)
        if not parked:
            self._delivery.withdraw(numbers)
        await self._backlog.recount()
        return dropped
