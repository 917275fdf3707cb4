"""Events come back from the disk as they were, once, and in the order of acceptance."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from sidecar.core.events import Limits, Mark, Pending, least_volume
from sidecar.core.model import Endpoint
from sidecar.errors import DiskError
from sidecar.store.database import Database
from sidecar.store.events import LAYOUT as OUTBOX
from sidecar.store.events import Events
from sidecar.store.file import Connection
from tests.unit.builders import an_event
from tests.unit.disk import Facts, FakeClock, by_hand, events, until

T = TypeVar("T")


async def keys(outbox: Events, room: str = "standup", after: int = 0) -> list[str]:
    """The idempotency keys of a room's waiting events."""
    return [pending.event.idempotency_key for pending in await outbox.page(room, after, 100)]


def a_mark(pending: Pending, reason: str | None = None, answer: bytes = b"") -> Mark:
    """What became of a waiting event."""
    event = pending.event
    return Mark(pending.number, pending.name, len(event.body), event.room, reason, 422 if reason else 200, answer)


async def test_events_come_back_byte_for_byte_in_the_order_of_acceptance(tmp_path: Path) -> None:
    brought = [an_event(number, body=b"\x00\xff%d" % number) for number in range(5)]
    async with events(tmp_path, FakeClock()) as outbox:
        assert await outbox.add(brought) == [True] * 5
        await outbox.add([an_event(9, room="other")])
    async with events(tmp_path, FakeClock()) as outbox:
        page = await outbox.page("standup", 0, 3)
        assert [pending.event for pending in page] == brought[:3]
        assert [pending.event for pending in await outbox.page("standup", page[-1].number, 3)] == brought[3:]
        assert await outbox.rooms("", 10) == ["other", "standup"]
        assert await outbox.rooms("other", 10) == ["standup"]


async def test_the_same_event_is_kept_once_while_it_waits_is_parked_or_was_delivered_lately(tmp_path: Path) -> None:
    clock = FakeClock()
    async with events(tmp_path, clock) as outbox:
        assert await outbox.add([an_event(1), an_event(1), an_event(2)]) == [True, False, True]
        first, second = await outbox.page("standup", 0, 10)
        await outbox.mark([a_mark(first), a_mark(second, "no")], Limits())
        assert await outbox.add([an_event(1), an_event(2)]) == [False, False]
        clock.pass_by(90_000)
        await outbox.mark([], Limits())
        assert await outbox.add([an_event(1), an_event(2)]) == [True, False]


async def test_the_same_key_for_another_room_or_endpoint_is_another_event(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        event = an_event(1)
        other_room = an_event(1, room="standup-1")
        assert await outbox.add([event, an_event(1, endpoint=Endpoint.USER_LEFT), other_room]) == [True] * 3


async def test_a_mark_for_another_event_of_the_same_number_takes_nothing_away(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1)])
        (pending,) = await outbox.page("standup", 0, 1)
        await outbox.mark(
            [Mark(pending.number, b"another", 0, "standup"), Mark(9, pending.name, 0, "standup")], Limits()
        )
        assert await keys(outbox) == ["standup-1"]


async def test_numbers_are_never_used_twice(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1)])
        (first,) = await outbox.page("standup", 0, 1)
        await outbox.mark([a_mark(first)], Limits())
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(2)])
        (second,) = await outbox.page("standup", 0, 1)
        assert second.number > first.number


async def test_a_parked_event_can_be_seen_retried_and_dropped(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1), an_event(2), an_event(3)])
        first, second, _ = await outbox.page("standup", 0, 10)
        await outbox.mark(
            [a_mark(first, "the backend answered 422", b"\xffno such room"), a_mark(second, "x")], Limits()
        )
        seen = await outbox.listing(parked=True, after=0, most=10)
        assert [(one.idempotency_key, one.status, one.reason) for one in seen] == [
            ("standup-1", 422, "the backend answered 422"),
            ("standup-2", 422, "x"),
        ]
        assert seen[0].answer == "\ufffdno such room"
        assert await outbox.retry([seen[0].number]) == ["standup"]
        assert await keys(outbox) == ["standup-3", "standup-1"]
        assert await outbox.drop(None, parked=True) == 1
        assert (await outbox.stock()).parked == 0
        waiting = await outbox.listing(parked=False, after=0, most=10)
        assert [one.idempotency_key for one in waiting] == ["standup-3", "standup-1"]
        assert await outbox.drop([waiting[0].number, 12345], parked=False) == 1
        assert await keys(outbox) == ["standup-1"]


@pytest.mark.parametrize("limits", [Limits(max_parked=2), Limits(max_bytes=25)])
async def test_the_oldest_parked_events_make_room(tmp_path: Path, limits: Limits) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(number, body=b"0123456789") for number in range(5)])
        page = await outbox.page("standup", 0, 10)
        marked = await outbox.mark([a_mark(pending, "no") for pending in page], limits)
        assert marked.thrown_away == 3
        assert [one.idempotency_key for one in await outbox.listing(parked=True, after=0, most=9)] == [
            "standup-3",
            "standup-4",
        ]


async def test_parking_is_as_much_work_with_ten_thousand_parked_as_with_none(tmp_path: Path) -> None:
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    class Counted(Database):
        async def write(self, job: Callable[[Connection], T], *, durable: bool, frees: bool = False) -> T:
            def counted(connection: Connection) -> T:
                connection.set_progress_handler(count, 1)
                return job(connection)

            return await super().write(counted, durable=durable, frees=frees)

    async def park(numbers: range) -> int:
        """How many steps SQLite's virtual machine needs."""
        nonlocal steps
        await outbox.add([an_event(number) for number in numbers])
        page = await outbox.page("standup", 0, len(numbers))
        steps = 0
        await outbox.mark([a_mark(pending, "no") for pending in page], Limits(max_parked=10_001))
        return steps

    database = Counted(tmp_path, OUTBOX, FakeClock(), Facts())
    outbox = Events(database, FakeClock(), "boot-1")
    try:
        first = await park(range(1))
        await park(range(1, 10_000))
        assert await park(range(10_000, 10_001)) < 1.2 * first
        assert await park(range(10_001, 10_002)) < 2.5 * first  # one is deleted for it
        assert (await outbox.stock()).parked == 10_001
    finally:
        await database.close()


async def test_the_sum_of_parked_events_follows_every_change_and_a_restart(tmp_path: Path) -> None:
    limits = Limits(max_bytes=3 * 1000)
    for start in (0, 10):
        async with events(tmp_path, FakeClock()) as outbox:
            await outbox.drop(None, parked=True)
            await outbox.add([an_event(start + number, body=b"x" * 1000) for number in range(8)])
            page = await outbox.page("standup", 0, 10)
            assert (await outbox.mark([a_mark(pending, "no") for pending in page[:4]], limits)).thrown_away == 1
            (oldest, *_) = await outbox.listing(parked=True, after=0, most=9)
            await outbox.retry([oldest.number])
            assert (await outbox.mark([a_mark(page[4], "no")], limits)).thrown_away == 0
            await outbox.drop([oldest.number + 1], parked=True)
            assert (await outbox.mark([a_mark(page[5], "no")], limits)).thrown_away == 0
        async with events(tmp_path, FakeClock()) as outbox:
            assert (await outbox.mark([a_mark(page[6], "no")], limits)).thrown_away == 1
            assert (await outbox.stock()).parked == 3
            await outbox.drop(None, parked=False)


async def test_the_stock_is_counted(tmp_path: Path) -> None:
    clock = FakeClock()
    async with events(tmp_path, clock) as outbox:
        assert (await outbox.stock()).oldest_at is None
        await outbox.add([an_event(1, body=b"12345")])
        clock.pass_by(5)
        await outbox.add([an_event(2, body=b"123"), an_event(3)])
        first, _, third = await outbox.page("standup", 0, 10)
        marked = await outbox.mark([a_mark(first), a_mark(third, "no")], Limits())
        stock = await outbox.stock()
        assert (stock.pending, stock.bytes, stock.parked, stock.oldest_at) == (1, 3, 1, 1_005.0)
        assert marked.oldest_at == 1_005.0


@pytest.mark.parametrize("size", [1, 1_900, 2_050, 4_200])
async def test_the_file_is_no_larger_than_the_volume_that_check_asks_for(tmp_path: Path, size: int) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        for start in range(0, 1_000, 100):
            await outbox.add([an_event(start + n, f"room-{n}@muc.example", body=b"x" * size) for n in range(100)])
    fixed = least_volume(Limits(max_events=0), 0)
    least = least_volume(Limits(max_events=1_000, max_bytes=1_000 * size), 0) - fixed
    assert (tmp_path / "outbox.db").stat().st_size < 3 / 4 * least


async def test_a_file_of_the_first_release_is_taken_over_and_its_events_are_new(tmp_path: Path) -> None:
    tables = ("PRAGMA user_version = 1", "CREATE TABLE probe (filler BLOB)", *OUTBOX.statements)
    for statement in tables:
        by_hand(tmp_path, "outbox.db", statement)
    columns = "name, endpoint, room, idempotency_key, accepted_at, traceparent, checksum, body"
    name, body = b"0123456789abcdef", b"{}"
    row = (name, "user-left", "standup", "key", 7.0, "", zlib.crc32(body, zlib.crc32(name)), body)
    by_hand(tmp_path, "outbox.db", f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *row)
    by_hand(tmp_path, "outbox.db", "INSERT INTO delivered (name, at) VALUES (?, 7.0)", b"delivered")
    clock = FakeClock()
    for _ in range(2):
        async with events(tmp_path, clock) as outbox:
            (pending,) = await outbox.page("standup", 0, 9)
            assert (pending.event.body, pending.damaged, pending.since) == (body, False, 1_000.0)
            assert await outbox.add([]) == []
            clock.pass_by(50_000)
            await outbox.mark([], Limits())
            assert by_hand(tmp_path, "outbox.db", "SELECT count(*) FROM delivered") == [(clock.boottime < 90_000,)]
    # What the first release writes into the file now, it still can.
    by_hand(tmp_path, "outbox.db", f"INSERT INTO events ({columns}) VALUES (x'00', ?, ?, ?, ?, ?, ?, ?)", *row[1:])


async def test_a_damaged_event_is_known_by_its_checksum(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1), an_event(2)])
        by_hand(
            tmp_path, "outbox.db", "UPDATE events SET body = CAST('{}' AS BLOB) WHERE idempotency_key = 'standup-1'"
        )
        assert [pending.damaged for pending in await outbox.page("standup", 0, 10)] == [True, False]


async def test_a_row_whose_text_is_damaged_blocks_nothing(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1), an_event(2, room="other")])
        by_hand(tmp_path, "outbox.db", "UPDATE events SET room = CAST(x'ff61' AS TEXT) WHERE room = 'standup'")
        with pytest.raises(DiskError):
            await outbox.rooms("", 10)
        await until(lambda: outbox.generation == 2)
        assert await outbox.rooms("", 10) == ["other", "\ufffda"]
        assert len(await outbox.page("\ufffda", 0, 10)) == 1


async def test_a_room_name_that_has_no_utf8_is_taken_all_the_same(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        assert await outbox.add([an_event(1, room="\ud800")]) == [True]
        assert len(await outbox.page("\ud800", 0, 10)) == 1
