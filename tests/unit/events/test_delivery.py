"""What is acknowledged arrives: in its room's order, with the same key, and nobody waits for another room."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from sidecar.clock import SystemClock
from sidecar.core.delivery_schedule import Pacing
from sidecar.core.events import ANSWER_KEPT, Limits
from sidecar.core.model import Endpoint, Event, Misconfigured, Outcome, Rejected, Replied, Unavailable
from sidecar.events.delivery import Delivery
from sidecar.facts import Asked, Crashed, EventDelivered, EventParked
from tests.unit.builders import an_event
from tests.unit.disk import SteppedClock, until
from tests.unit.events.bench import AWAY, QUICK, Bench, a_bench


async def test_each_room_is_delivered_in_the_order_accepted_and_rooms_side_by_side() -> None:
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


async def test_every_attempt_is_reported_as_a_call_to_the_backend() -> None:
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
        await until(lambda: not bench.marks.unwritten)
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
        await until(lambda: bench.schedule.down)
        await until(lambda: not bench.delivery.turns)  # also none that is about to begin
        tried, begun = len(bench.backend.tried), SystemClock().monotonic()
        assert tried <= 2 * pacing.max_in_flight
        bench.backend.most_in_flight = 0
        await until(lambda: len(bench.backend.tried) >= tried + 8)
        assert SystemClock().monotonic() - begun > 6 * pacing.base
        assert bench.backend.most_in_flight == 1
        bench.backend.answer = lambda event: Replied(200)
        bench.delivery.nudge()
        await until(lambda: bench.outbox.pending() == 0, within=1.0)


async def test_an_event_too_old_is_parked_when_it_fails_once_more_and_its_followers_live() -> None:
    async with a_bench(limits=Limits(max_age=3600.0)) as bench:
        bench.backend.answer = lambda event: AWAY
        await bench.accept(an_event(1), an_event(2))
        bench.clock.passed += 3700
        await bench.accept(an_event(3))
        await until(lambda: bench.outbox.parked() == 2)
        bench.backend.answer = lambda event: Replied(200)
        await until(lambda: bench.backend.keys() == ["standup-3"])
        assert {fact.reason for fact in bench.facts.all if isinstance(fact, EventParked)} == {
            "too old: connection refused"
        }


@pytest.mark.parametrize("days", [8, -2, 10_000])
async def test_a_wall_clock_that_jumps_parks_no_event(tmp_path: Path, days: float) -> None:
    clock = SteppedClock()
    async with a_bench(tmp_path, clock=clock) as bench:
        bench.backend.answer = lambda event: AWAY
        await bench.accept(*(an_event(number) for number in range(3)))
        clock.ahead = days * 86_400
        await tried_again(bench)
    async with a_bench(tmp_path, clock=clock) as bench:
        bench.backend.answer = lambda event: AWAY
        await tried_again(bench)
        clock.ahead = 0.0
        await tried_again(bench)
        bench.backend.answer = lambda event: Replied(200)
        await until(lambda: bench.backend.keys() == ["standup-0", "standup-1", "standup-2"])
        assert bench.outbox.parked() == 0
        assert [fact.lag < 60 for fact in bench.facts.all if isinstance(fact, EventDelivered)] == [True] * 3


async def test_the_time_of_an_event_goes_on_over_a_restart_and_stands_still_while_the_machine_is_off(
    tmp_path: Path,
) -> None:
    limits = Limits(max_age=100.0)
    clock = SteppedClock()
    async with a_bench(tmp_path, clock=clock, limits=limits, start=False) as bench:
        await bench.accept(an_event(1))
        clock.passed += 60
        await bench.accept(an_event(2))
    off_for_a_year = SteppedClock(passed=-SystemClock().monotonic() + 5, ahead=365 * 86_400)
    async with a_bench(tmp_path, clock=off_for_a_year, limits=limits, boot="boot-2") as bench:
        bench.backend.answer = lambda event: AWAY
        await tried_again(bench)
        assert bench.outbox.parked() == 0
        await bench.accept(an_event(3))
        off_for_a_year.passed += 30
    async with a_bench(tmp_path, clock=off_for_a_year, limits=limits, boot="boot-2") as bench:
        bench.backend.answer = lambda event: AWAY
        await tried_again(bench)
        assert bench.outbox.parked() == 0
        off_for_a_year.passed += 15
        await until(lambda: bench.outbox.parked() == 1)


async def tried_again(bench: Bench) -> None:
    """Wait until deliveries have failed a few more times."""
    tried = len(bench.backend.tried)
    await until(lambda: len(bench.backend.tried) >= tried + 3)


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
        assert sum(bench.disk.pages) <= Delivery.PAGE


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
        await until(lambda: not bench.marks.unwritten)
        bench.disk.gate.clear()
        telling = asyncio.create_task(bench.accept(an_event(2)))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(1.0):
            await bench.delivery.stop(grace=0.02)
        telling.cancel()
