"""What became of an event is written down, or it is delivered again: after crashes, and on disks that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sidecar.core.events import Limits, Mark, Marked
from sidecar.events.marks import Marks
from tests.unit.builders import an_event
from tests.unit.disk import until
from tests.unit.events.bench import QUICK, a_bench, garble


async def test_a_mark_that_cannot_be_written_is_written_later_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.disk.broken = {"mark"}
        await bench.accept(an_event(1), an_event(2))
        await until(lambda: len(bench.backend.got) == 2)
        await bench.accept(an_event(3))
        await until(lambda: len(bench.backend.got) == 3)
        bench.disk.broken = set()
        await until(lambda: not bench.marks.unwritten)
        assert bench.backend.keys() == ["standup-1", "standup-2", "standup-3"]
    async with a_bench(tmp_path) as bench:
        assert bench.outbox.pending() == 0


async def test_when_marks_cannot_be_written_for_long_nothing_more_is_delivered() -> None:
    async with a_bench() as bench:
        bench.marks.MOST = 2
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
        await until(lambda: not bench.marks.unwritten)
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


class MarkedMeanwhile:
    """A disk that takes its time: another event of the room is done with while a mark is written."""

    full = False

    def __init__(self) -> None:
        self.marks: Marks | None = None
        self.more = [a_mark(2)]

    async def mark(self, marks: Sequence[Mark], limits: Limits) -> Marked:
        assert self.marks is not None
        for mark in self.more:
            self.marks.add(mark)
        self.more = []
        return Marked(thrown_away=0, oldest_at=None)


def a_mark(number: int) -> Mark:
    return Mark(number, b"name", 10, "standup", None, 200, b"")


async def test_an_event_that_is_done_with_while_marks_are_written_is_not_taken_from_the_disk_again() -> None:
    store = MarkedMeanwhile()
    marks = store.marks = Marks(store, Limits())
    marks.add(a_mark(1))
    await marks.write()
    assert marks.last("standup") == 2
    await marks.write()
    assert marks.last("standup") == 0
