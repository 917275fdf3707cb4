"""What is acknowledged arrives: in its room's order, with the same key, and nobody waits for another room."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sidecar.clock import SystemClock
from sidecar.core.events import ANSWER_KEPT, Limits
from sidecar.core.model import Endpoint, Event, Misconfigured, Outcome, Rejected, Replied, Unavailable
from sidecar.core.schedule import Pacing
from sidecar.errors import DiskError, OutboxFull
from sidecar.events.outbox import Outbox
from sidecar.facts import Asked, Crashed, EventAccepted, EventDelivered, EventParked, Notice, OutboxChanged
from sidecar.store.events import Events
from tests.unit.disk import Facts, an_event, events, until

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

    @property
    def generation(self) -> int:
        return self._store.generation

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        async def call(*args, **kwargs):  # type: ignore[no-untyped-def]
            await self.gate.wait()
            if name in self.broken:
                raise DiskError("the disk is full")
            if name == "add":
                self.commits.append(len(args[0]))
            return await getattr(self._store, name)(*args, **kwargs)

        return call


class Bench:
    """An outbox, its disk and its backend."""

    def __init__(self, store: Events, limits: Limits, pacing: Pacing, timeout: float, accept_within: float) -> None:
        self.store = store
        self.disk = Stock(store)
        self.backend = FakeBackend()
        self.facts = Facts()
        self.outbox = Outbox(
            self.disk,
            self.backend,
            clock=SystemClock(),
            jitter=lambda: 0.0,
            emit=self.facts,
            limits=limits,
            pacing=pacing,
            timeout=timeout,
            accept_within=accept_within,
        )
        self._run: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._run = asyncio.create_task(self.outbox.run())

    async def stop(self) -> None:
        """End as the daemon does."""
        await self.outbox.stop(grace=0.05)
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
    start: bool = True,
) -> AsyncIterator[Bench]:
    """One process's life."""
    async with events(folder, SystemClock()) as store:
        bench = Bench(store, limits or Limits(max_age=1e12), pacing, timeout, accept_within)
        if start:
            bench.start()
        try:
            yield bench
        finally:
            bench.disk.gate.set()
            await bench.stop()


# ---- accepting


async def test_an_event_that_is_accepted_survives(tmp_path: Path) -> None:
    async with a_bench(tmp_path, start=False) as bench:
        await bench.accept(an_event(1), an_event(2))
        assert bench.outbox.pending() == 2
        assert bench.facts.names() == ["EventAccepted", "EventAccepted"]
    async with a_bench(tmp_path) as bench:
        await until(lambda: bench.backend.keys() == ["standup-1", "standup-2"])
        assert bench.backend.got[0] == an_event(1)
        assert bench.outbox.pending() == 0


async def test_accept_returns_only_when_the_event_is_on_disk() -> None:
    async with a_bench() as bench:
        bench.disk.gate.clear()
        accepting = asyncio.create_task(bench.accept(an_event()))
        await asyncio.sleep(0.01)
        assert not accepting.done()
        bench.disk.gate.set()
        await accepting


async def test_many_at_once_share_a_commit() -> None:
    async with a_bench() as bench:
        await asyncio.gather(*(bench.accept(an_event(number)) for number in range(300)))
        assert sum(bench.disk.commits) == 300
        assert len(bench.disk.commits) <= 3
        await until(lambda: bench.backend.keys() == [f"standup-{number}" for number in range(300)])


async def test_the_same_event_brought_twice_is_delivered_once() -> None:
    async with a_bench() as bench:
        await bench.accept(an_event(1), an_event(1))
        await until(lambda: bench.outbox.pending() == 0)
        await bench.accept(an_event(1))
        await bench.accept(an_event(2))
        await until(lambda: bench.backend.keys() == ["standup-1", "standup-2"])
        assert len(bench.facts.of(EventAccepted)) == 2


async def test_when_too_many_wait_the_next_is_refused_and_none_is_thrown_away() -> None:
    async with a_bench(limits=Limits(max_events=3, max_age=1e12)) as bench:
        bench.backend.answer = lambda event: AWAY
        brought = await asyncio.gather(*(bench.accept(an_event(n)) for n in range(5)), return_exceptions=True)
        assert [type(result) for result in brought] == [type(None)] * 3 + [OutboxFull] * 2
        bench.backend.answer = lambda event: Replied(200)
        await until(lambda: bench.outbox.pending() == 0)
        await bench.accept(an_event(9))
        await until(lambda: bench.backend.keys() == ["standup-0", "standup-1", "standup-2", "standup-9"])
        assert bench.facts.of(OutboxChanged) == [
            OutboxChanged(full=True, reason="3 events wait for the backend"),
            OutboxChanged(full=False),
        ]


async def test_an_outbox_that_is_full_and_drains_slowly_is_one_alarm() -> None:
    async with a_bench(limits=Limits(max_events=30, max_age=1e12), start=False) as bench:
        await asyncio.gather(*(bench.accept(an_event(n)) for n in range(30)))
        for dropped in range(1, 5):
            with pytest.raises(OutboxFull):
                await bench.accept(an_event(100))
            await bench.outbox.drop([dropped], parked=False)
            with contextlib.suppress(OutboxFull):
                await bench.accept(an_event(200 + dropped))
        assert len(bench.facts.of(OutboxChanged)) == 1
        await bench.outbox.drop([10, 11, 12], parked=False)
        assert len(bench.facts.of(OutboxChanged)) == 2


async def test_when_too_many_bytes_wait_the_next_is_refused() -> None:
    async with a_bench(limits=Limits(max_bytes=100), start=False) as bench:
        await bench.accept(an_event(1, body=b"x" * 60))
        with pytest.raises(OutboxFull, match="100 bytes"):
            await bench.accept(an_event(2, body=b"x" * 60))
        await bench.accept(an_event(3, body=b"x" * 40))


async def test_a_disk_that_fails_refuses_the_event_and_the_next_one_may_go() -> None:
    async with a_bench() as bench:
        bench.disk.broken = {"add"}
        with pytest.raises(DiskError):
            await bench.accept(an_event(1))
        assert bench.outbox.pending() == 0
        bench.disk.broken = set()
        await bench.accept(an_event(1))
        await until(lambda: bench.backend.keys() == ["standup-1"])


async def test_a_disk_that_is_slow_refuses_in_time_and_what_it_still_writes_counts() -> None:
    async with a_bench(accept_within=0.02) as bench:
        bench.disk.gate.clear()
        first = asyncio.create_task(bench.accept(an_event(1)))
        await asyncio.sleep(0)
        second = asyncio.create_task(bench.accept(an_event(2)))
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [str(result) for result in results] == ["the disk takes longer than 0.02 s"] * 2
        bench.disk.gate.set()
        await until(lambda: bench.backend.keys() == ["standup-1"])  # the second had not been given to the disk


async def test_a_disk_that_hangs_costs_no_memory_without_bounds() -> None:
    async with a_bench(accept_within=0.05) as bench:
        bench.disk.gate.clear()
        results = await asyncio.gather(
            *(bench.accept(an_event(number)) for number in range(2_000)), return_exceptions=True
        )
        assert {type(result) for result in results} == {DiskError, OutboxFull}
        assert len(bench.outbox._waiting) <= Outbox.MOST_WAITING
        assert not bench.facts.of(OutboxChanged)


# ---- delivering


async def test_each_room_is_told_in_the_order_accepted_and_rooms_side_by_side() -> None:
    async with a_bench() as bench:
        rooms = [f"room{number}" for number in range(12)]
        await asyncio.gather(*(bench.accept(*(an_event(n, room) for n in range(20))) for room in rooms))
        await until(lambda: len(bench.backend.got) == 240)
        for room in rooms:
            assert bench.backend.keys(room) == [f"{room}-{number}" for number in range(20)]
        assert 1 < bench.backend.most_in_flight <= QUICK.max_in_flight


async def test_a_room_has_one_event_in_flight() -> None:
    async with a_bench() as bench:
        gate = bench.backend.hold("standup")
        await bench.accept(an_event(1), an_event(2), an_event(3))
        await until(lambda: bench.backend.in_flight == 1)
        await asyncio.sleep(0.02)
        assert len(bench.backend.tried) == 1
        gate.set()
        await until(lambda: len(bench.backend.got) == 3)


@pytest.mark.parametrize("failure", [AWAY, Misconfigured("401", 401), Unavailable("503", status=503, retry_after=0.02)])
async def test_an_event_is_tried_until_the_backend_takes_it_with_the_same_key(failure: Outcome) -> None:
    async with a_bench() as bench:
        bench.backend.answer = lambda event: failure if len(bench.backend.tried) < 4 else Replied(200)
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: bench.backend.keys() == ["standup-1", "standup-2"])
        assert [event.idempotency_key for event in bench.backend.tried] == ["standup-1"] * 4 + ["standup-2"]
        assert [fact.attempts for fact in bench.facts.all if isinstance(fact, EventDelivered)] == [4, 1]


async def test_every_attempt_is_told_as_a_call_to_the_backend() -> None:
    async with a_bench() as bench:
        bench.backend.answer = lambda event: AWAY if len(bench.backend.tried) < 2 else Replied(204)
        await bench.accept(an_event(1))
        await until(lambda: bench.outbox.pending() == 0)
        asked = [fact for fact in bench.facts.all if isinstance(fact, Asked)]
        assert [(fact.outcome, fact.status, fact.reason, fact.retry) for fact in asked] == [
            ("unavailable", None, "connection refused", False),
            ("replied", 204, "", True),
        ]


async def test_a_rejected_event_is_parked_with_the_answer_and_blocks_nobody() -> None:
    async with a_bench() as bench:
        poison = Rejected(422, b"x" * 10_000)
        bench.backend.answer = lambda event: poison if event.idempotency_key == "standup-1" else Replied(200)
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: bench.backend.keys() == ["standup-2"])
        assert (bench.outbox.pending(), bench.outbox.parked()) == (0, 1)
        await until(lambda: not bench.outbox._marks)
        (parked,) = await bench.outbox.listing(parked=True)
        assert (parked.status, parked.reason) == (422, "the backend answered 422")
        assert parked.answer == "x" * ANSWER_KEPT
        assert bench.facts.of(EventParked) == [
            EventParked(Endpoint.USER_JOINED, "standup", 422, "the backend answered 422")
        ]


async def test_a_hanging_and_a_poisoned_room_delay_no_others() -> None:
    async with a_bench() as bench:
        bench.backend.hold("hanging")
        bench.backend.answer = lambda event: AWAY if event.room == "poisoned" else Replied(200)
        await bench.accept(an_event(1, "hanging"), an_event(1, "poisoned"))
        others = [f"room{number}" for number in range(100)]
        await asyncio.gather(*(bench.accept(*(an_event(n, room) for n in range(3))) for room in others))
        await until(lambda: len(bench.backend.got) == 300, within=10.0)
        assert bench.outbox.pending() == 2


async def test_a_delivery_that_hangs_is_given_up_and_tried_again() -> None:
    async with a_bench(timeout=-0.98) as bench:  # the engine itself waits a second longer than that
        bench.backend.hold("standup")
        await bench.accept(an_event(1))
        await until(lambda: len(bench.backend.tried) == 3)


async def test_a_defect_in_delivering_ends_nothing() -> None:
    async with a_bench() as bench:

        def defect(event: Event) -> Outcome:
            raise ZeroDivisionError

        bench.backend.answer = defect
        await bench.accept(an_event(1))
        await until(lambda: bench.facts.of(Crashed))
        bench.backend.answer = lambda event: Replied(200)
        await until(lambda: bench.backend.keys() == ["standup-1"])


async def test_while_the_backend_is_away_one_room_tries_at_a_time_and_then_all_go() -> None:
    pacing = Pacing(base=0.05, cap=0.2, probe_cap=0.1)
    async with a_bench(pacing=pacing) as bench:
        bench.backend.answer = lambda event: AWAY
        await asyncio.gather(*(bench.accept(an_event(1, f"room{number}")) for number in range(200)))
        await until(lambda: bench.outbox._schedule.down)
        await until(lambda: not bench.outbox._turns)  # also none that is about to begin
        tried, begun = len(bench.backend.tried), SystemClock().monotonic()
        assert tried <= 2 * pacing.max_in_flight
        bench.backend.most_in_flight = 0
        await until(lambda: len(bench.backend.tried) >= tried + 8)
        assert SystemClock().monotonic() - begun > 6 * pacing.base
        assert bench.backend.most_in_flight == 1
        bench.backend.answer = lambda event: Replied(200)
        bench.outbox.nudge()
        await until(lambda: bench.outbox.pending() == 0, within=1.0)


async def test_an_event_too_old_is_parked_when_it_fails_once_more_and_its_followers_live() -> None:
    async with a_bench(limits=Limits(max_age=3600.0)) as bench:
        now = SystemClock().wall()
        bench.backend.answer = lambda event: AWAY
        await bench.accept(an_event(1, at=now - 4000), an_event(2, at=now - 3700), an_event(3, at=now))
        await until(lambda: bench.outbox.parked() == 2)
        bench.backend.answer = lambda event: Replied(200)
        await until(lambda: bench.backend.keys() == ["standup-3"])
        assert {fact.reason for fact in bench.facts.all if isinstance(fact, EventParked)} == {
            "too old: connection refused"
        }


async def test_what_is_damaged_on_disk_is_parked_and_not_sent(tmp_path: Path) -> None:

    async with a_bench(tmp_path, start=False) as bench:
        await bench.accept(an_event(1), an_event(2))
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as connection, connection:
        connection.execute("UPDATE events SET body = CAST('{}' AS BLOB) WHERE number = 1")
    async with a_bench(tmp_path) as bench:
        await until(lambda: bench.backend.keys() == ["standup-2"])
        assert bench.outbox.parked() == 1


async def test_bodies_of_a_long_queue_are_not_all_in_memory() -> None:
    async with a_bench() as bench:
        bench.backend.hold("standup")
        await asyncio.gather(*(bench.accept(an_event(number)) for number in range(500)))
        await until(lambda: bench.backend.in_flight == 1)
        assert sum(map(len, bench.outbox._pages.values())) <= Outbox.PAGE


# ---- marks, crashes, files


async def test_a_mark_that_cannot_be_written_is_written_later_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.disk.broken = {"mark"}
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: len(bench.backend.got) == 2)
        await bench.accept(an_event(3))
        await until(lambda: len(bench.backend.got) == 3)
        bench.disk.broken = set()
        await until(lambda: not bench.outbox._marks)
        assert bench.backend.keys() == ["standup-1", "standup-2", "standup-3"]
    async with a_bench(tmp_path) as bench:
        assert bench.outbox.pending() == 0


async def test_when_marks_cannot_be_written_for_long_nothing_more_is_delivered() -> None:
    async with a_bench() as bench:
        bench.outbox.MOST_UNMARKED = 2
        bench.disk.broken = {"mark"}
        for number in range(10):
            await bench.accept(an_event(1, f"room{number}"))
            await asyncio.sleep(0.005)
        tried = len(bench.backend.tried)
        assert tried <= 2 + QUICK.max_in_flight // 4
        bench.disk.broken = set()
        await until(lambda: len(bench.backend.got) == 10)


async def test_a_crash_between_delivery_and_mark_delivers_again_with_the_same_key_in_order(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.disk.broken = {"mark"}
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: len(bench.backend.got) == 2)
    async with a_bench(tmp_path) as bench:
        await bench.accept(an_event(3))
        await until(lambda: bench.backend.keys() == ["standup-1", "standup-2", "standup-3"])


async def test_a_new_file_begun_while_running_is_gone_on_with(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.backend.hold("hanging")
        await bench.accept(*(an_event(number) for number in range(5)), an_event(1, "hanging"))
        await until(lambda: len(bench.backend.got) == 5)
        await until(lambda: not bench.outbox._marks)
        await garble(bench.store, tmp_path / "outbox.db")
        for number in range(10):
            await bench.accept_at_last(an_event(number, "after"))
        await until(lambda: len(bench.backend.keys("after")) == 10)


async def test_a_new_file_may_use_lower_numbers(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.disk.broken = {"mark"}
        await bench.accept(*(an_event(number) for number in range(5)))
        await until(lambda: len(bench.backend.got) == 5)
        await garble(bench.store, tmp_path / "outbox.db")
        await bench.accept_at_last(an_event(9))
        await until(lambda: bench.backend.keys()[-1] == "standup-9")


async def test_stopping_lets_what_is_under_way_end_and_leaves_the_rest_on_disk(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        gate = bench.backend.hold("standup")
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: bench.backend.in_flight == 1)
        asyncio.get_running_loop().call_later(0.01, gate.set)
    assert bench.backend.keys() == ["standup-1"]
    async with a_bench(tmp_path) as bench:
        await until(lambda: bench.backend.keys() == ["standup-2"])


async def test_a_disk_that_hangs_does_not_keep_it_from_stopping() -> None:
    async with a_bench() as bench:
        await bench.accept(an_event(1))
        await until(lambda: len(bench.backend.got) == 1)
        await until(lambda: not bench.outbox._marks)
        bench.disk.gate.clear()
        telling = asyncio.create_task(bench.accept(an_event(2)))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1.0):
            await bench.outbox.stop(grace=0.02)
        telling.cancel()


# ---- room-created that was answered without the backend


async def test_what_is_told_later_comes_before_the_rooms_later_events() -> None:
    async with a_bench() as bench:
        created = an_event(0, endpoint=Endpoint.ROOM_CREATED)
        bench.outbox.deliver_later(created)
        await bench.accept(an_event(1))
        await until(lambda: [event.endpoint for event in bench.backend.got] == ["room-created", "user-joined"])


async def test_what_cannot_be_kept_to_be_told_later_is_said_and_raises_nothing() -> None:
    async with a_bench(limits=Limits(max_events=1), start=False) as bench:
        bench.disk.broken = {"add"}
        bench.outbox.deliver_later(an_event(1))
        await until(lambda: bench.facts.of(EventParked))
        bench.disk.broken = set()
        await bench.accept(an_event(2))
        bench.outbox.deliver_later(an_event(3))
        assert [fact.reason for fact in bench.facts.all if isinstance(fact, EventParked)] == [
            "not kept: the disk is full",
            "not kept: 1 events wait for the backend",
        ]


# ---- operators


async def test_an_operator_retries_and_drops_what_is_parked() -> None:
    async with a_bench() as bench:
        bench.backend.answer = lambda event: Rejected(400)
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: bench.outbox.parked() == 2)
        await until(lambda: not bench.outbox._marks)
        bench.backend.answer = lambda event: Replied(200)
        first, second = await bench.outbox.listing(parked=True)
        assert await bench.outbox.retry([first.number]) == 1
        await until(lambda: bench.backend.keys() == ["standup-1"])
        assert await bench.outbox.drop([second.number]) == 1
        assert bench.outbox.parked() == 0


async def test_a_waiting_event_that_is_dropped_is_not_sent_though_its_room_has_its_turn() -> None:
    async with a_bench() as bench:
        gate = bench.backend.hold("standup")
        await bench.accept(an_event(1), an_event(2), an_event(3))
        await until(lambda: bench.backend.in_flight == 1)
        waiting = await bench.outbox.listing(parked=False)
        assert await bench.outbox.drop([waiting[1].number], parked=False) == 1
        assert bench.outbox.pending() == 2
        gate.set()
        await until(lambda: bench.backend.keys() == ["standup-1", "standup-3"])
        await until(lambda: bench.outbox.pending() == 0)


async def test_an_event_that_is_dropped_while_it_is_under_way_takes_no_other_with_it() -> None:
    async with a_bench(start=False) as bench:
        gate = bench.backend.hold("standup")
        await bench.accept(an_event(1), an_event(2), an_event(3))
        bench.start()
        await until(lambda: bench.backend.in_flight == 1)
        waiting = await bench.outbox.listing(parked=False)
        assert await bench.outbox.drop([waiting[0].number], parked=False) == 1
        gate.set()
        await until(lambda: bench.backend.keys() == ["standup-1", "standup-2", "standup-3"])
        await until(lambda: bench.outbox.pending() == 0)


async def test_the_age_of_the_oldest_event_is_known() -> None:
    async with a_bench() as bench:
        assert bench.outbox.oldest_age() == 0.0
        bench.backend.answer = lambda event: AWAY
        await bench.accept(an_event(1, at=SystemClock().wall() - 100))
        assert 100 <= bench.outbox.oldest_age() < 110
        bench.backend.answer = lambda event: Replied(200)
        await until(lambda: bench.outbox.oldest_age() == 0.0)


async def test_parked_events_that_had_to_make_room_are_said() -> None:
    async with a_bench(limits=Limits(max_parked=1)) as bench:
        bench.backend.answer = lambda event: Rejected(400)
        await bench.accept(an_event(1), an_event(2), an_event(3))
        await until(lambda: bench.facts.of(Notice))
        await until(lambda: bench.outbox.parked() == 1)
