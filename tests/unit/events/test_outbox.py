"""What is accepted is on disk, what cannot be kept is refused, and an operator has the last word on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sidecar.core.events import Limits
from sidecar.core.model import Endpoint, Rejected, Replied
from sidecar.errors import DiskError, OutboxFull
from sidecar.events.outbox import Outbox
from sidecar.facts import EventAccepted, EventParked, OutboxChanged
from tests.unit.builders import an_event
from tests.unit.disk import until
from tests.unit.events.bench import a_bench


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
        waited = [result for result in results if isinstance(result, DiskError)]
        assert len(waited) == Outbox.MOST_WAITING
        assert len(waited) + sum(isinstance(result, OutboxFull) for result in results) == 2_000
        assert not bench.facts.of(OutboxChanged)


# ---- room-created that was answered without the backend


async def test_what_is_delivered_later_comes_before_the_rooms_later_events() -> None:
    async with a_bench() as bench:
        created = an_event(0, endpoint=Endpoint.ROOM_CREATED)
        bench.outbox.deliver_later(created)
        await bench.accept(an_event(1))
        await until(lambda: [event.endpoint for event in bench.backend.got] == ["room-created", "user-joined"])


async def test_what_cannot_be_kept_to_be_delivered_later_is_said_and_raises_nothing() -> None:
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
        await until(lambda: not bench.marks.unwritten)
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
