"""The counts are right, and what would be too much is refused with one alarm."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from sidecar.core.events import Limits
from sidecar.core.model import Rejected, Replied
from sidecar.errors import OutboxFull
from sidecar.facts import Notice, OutboxChanged
from tests.unit.builders import an_event
from tests.unit.disk import until
from tests.unit.events.bench import AWAY, a_bench


async def test_when_too_many_wait_the_next_is_refused_and_none_is_thrown_away() -> None:
    async with a_bench(limits=Limits(max_events=3)) as bench:
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
    async with a_bench(limits=Limits(max_events=30), start=False) as bench:
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


async def test_the_age_of_the_oldest_event_is_known() -> None:
    async with a_bench() as bench:
        assert bench.outbox.oldest_age() == 0.0
        bench.backend.answer = lambda event: AWAY
        await bench.accept(an_event(1))
        bench.clock.passed += 100
        bench.clock.ahead += 8 * 86_400
        assert 100 <= bench.outbox.oldest_age() < 110
        bench.backend.answer = lambda event: Replied(200)
        await until(lambda: bench.outbox.oldest_age() == 0.0)


async def test_parked_events_that_had_to_make_room_are_said() -> None:
    async with a_bench(limits=Limits(max_parked=1)) as bench:
        bench.backend.answer = lambda event: Rejected(400)
        await bench.accept(an_event(1), an_event(2), an_event(3))
        await until(lambda: bench.facts.of(Notice))
        await until(lambda: bench.outbox.parked() == 1)


async def test_what_is_delivered_but_not_marked_on_disk_does_not_count() -> None:
    async with a_bench() as bench:
        bench.disk.broken = {"mark"}
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: bench.outbox.pending() == 0)
        assert await bench.outbox.retry(None) == 0  # counts again
        assert bench.outbox.pending() == 0
