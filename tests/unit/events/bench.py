"""An outbox to try things on: all of its parts, a disk that can fail, a backend that says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from sidecar.core.delivery_schedule import Pacing, Schedule
from sidecar.core.events import Limits
from sidecar.core.model import Event, Outcome, Replied, Unavailable
from sidecar.errors import DiskError
from sidecar.events.attempts import Attempts
from sidecar.events.backlog import Backlog
from sidecar.events.delivery import Delivery
from sidecar.events.marks import Marks
from sidecar.events.outbox import Outbox
from sidecar.store.events import Events
from tests.unit.disk import Facts, SteppedClock, events

QUICK = Pacing(base=0.01, cap=0.04, probe_cap=0.02)
AWAY = Unavailable("connection refused")


class FakeBackend:
    """Takes events, unless a test says otherwise."""

    def __init__(self) -> None:
        self.got: list[Event] = []
        self.tried: list[Event] = []
        self.answer: Callable[[Event], Outcome] = lambda event: Replied(204)
        self.gates: dict[str, asyncio.Event] = {}
        self.in_flight = 0
        self.most_in_flight = 0

    async def __call__(self, event: Event, seconds: float) -> Outcome:
        self.tried.append(event)
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        try:
            await asyncio.sleep(0)
            if event.room in self.gates:
                await self.gates[event.room].wait()
            outcome = self.answer(event)
        finally:
            self.in_flight -= 1
        if isinstance(outcome, Replied):
            self.got.append(event)
        return outcome

    def hold(self, room: str) -> asyncio.Event:
        """Let a room hang until the event is set."""
        return self.gates.setdefault(room, asyncio.Event())

    def keys(self, room: str | None = None) -> list[str]:
        """The idempotency keys that were taken."""
        return [event.idempotency_key for event in self.got if room in (None, event.room)]


class Stock:
    """A store whose disk can be held, and can fail."""

    def __init__(self, store: Events) -> None:
        self._store = store
        self.broken: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.commits: list[int] = []
        """Events that were written, by commit."""
        self.pages: list[int] = []
        """Events that were read, by turn."""

    @property
    def generation(self) -> int:
        return self._store.generation

    @property
    def full(self) -> bool:
        return self._store.full

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        async def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            await self.gate.wait()
            if name in self.broken:
                raise DiskError("the disk is full")
            if name == "add":
                self.commits.append(len(args[0]))
            done = await getattr(self._store, name)(*args, **kwargs)
            if name == "page":
                self.pages.append(len(done))
            return done

        return call


class Bench:
    """An outbox, its disk and its backend."""

    def __init__(
        self, store: Events, clock: SteppedClock, limits: Limits, pacing: Pacing, timeout: float, accept_within: float
    ) -> None:
        self.clock = clock
        self.store = store
        self.disk = Stock(store)
        self.backend = FakeBackend()
        self.facts = Facts()
        self.schedule = Schedule(pacing)
        self.marks = Marks(self.disk, limits)
        backlog = Backlog(self.disk, self.marks, limits, clock, self.facts)
        self.delivery = Delivery(
            self.disk,
            Attempts(self.backend, clock, self.facts, timeout),
            self.schedule,
            self.marks,
            backlog,
            clock=clock,
            jitter=lambda: 0.0,
            emit=self.facts,
            max_age=limits.max_age,
        )
        self.outbox = Outbox(self.disk, backlog, self.delivery, self.facts, accept_within=accept_within)
        self._run: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._run = asyncio.create_task(self.delivery.run())

    async def stop(self) -> None:
        """End as the daemon does."""
        await asyncio.gather(self.delivery.stop(grace=0.05), self.outbox.flush(grace=0.05))
        if self._run is not None:
            await self._run

    async def accept(self, *brought: Event) -> None:
        """One after the other."""
        for event in brought:
            await self.outbox.accept(event)

    async def accept_at_last(self, event: Event) -> None:
        """Like the module: again and again until it is taken."""
        async with asyncio.timeout(5.0):
            while True:
                with contextlib.suppress(DiskError):
                    return await self.outbox.accept(event)
                await asyncio.sleep(0.002)


async def garble(store: Events, file: Path) -> None:
    """Leave nothing in it that makes sense, nor in the memory of the one who has it open."""
    for name in (file, Path(f"{file}-wal")):
        with name.open("r+b") as open_file:
            open_file.write(b"\xa5" * 200_000)
    await store._database.read(lambda connection: connection.execute("PRAGMA shrink_memory"))


@contextlib.asynccontextmanager
async def a_bench(
    folder: Path | None = None,
    *,
    limits: Limits | None = None,
    pacing: Pacing = QUICK,
    timeout: float = 5.0,
    accept_within: float = 3.0,
    clock: SteppedClock | None = None,
    boot: str = "boot-1",
    start: bool = True,
) -> AsyncIterator[Bench]:
    """One process's life."""
    clock = SteppedClock() if clock is None else clock
    async with events(folder, clock, boot=boot) as store:
        bench = Bench(store, clock, limits or Limits(), pacing, timeout, accept_within)
        if start:
            bench.start()
        try:
            yield bench
        finally:
            bench.disk.gate.set()
            await bench.stop()
