"""Decisions come back from the disk as they were, never younger, and only if they are whole."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sidecar.core.model import Endpoint, Entry, Key, Lifetimes, Verdict
from sidecar.errors import DiskError
from sidecar.facts import Notice
from sidecar.store.database import Database
from sidecar.store.decisions import LAYOUT, SWEEP_EVERY, Decisions
from sidecar.store.file import Connection
from tests.unit.builders import LOBBY, a_key
from tests.unit.disk import Facts, FakeClock, an_entry, by_hand, decisions, loaded

T = TypeVar("T")

EVERY_PART = Key(Endpoint.VALIDATE_ACCESS, "r", "r@muc", "1", 'id "7"', "ab" * 32)
NO_PART = Key(Endpoint.ROOM_CREATED, "r")


@pytest.mark.parametrize("key", [EVERY_PART, NO_PART, NO_PART._replace(room_jid="")])
async def test_an_entry_comes_back_as_it_was(tmp_path: Path, key: Key) -> None:
    clock = FakeClock()
    entry = an_entry(Verdict.CONFIG if key.endpoint is Endpoint.ROOM_CREATED else Verdict.DENY, body=b"\x00\xff{}")
    async with decisions(tmp_path, clock) as store:
        await store.save({key: entry})
    async with decisions(tmp_path, clock) as store:
        assert await loaded(store) == {key: entry}
        assert await store.recall(key) == [(key, entry)]


async def test_the_last_word_on_a_key_is_what_comes_back(tmp_path: Path) -> None:
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key("a"): an_entry(), a_key("b"): an_entry(), a_key("c"): an_entry()})
        await store.save({a_key("a"): an_entry(Verdict.DENY), a_key("b"): None})
        remembered = await loaded(store)
    assert {key.room: entry.verdict for key, entry in remembered.items()} == {"a": Verdict.DENY, "c": Verdict.ALLOW}


async def test_everything_is_loaded_a_batch_at_a_time(tmp_path: Path) -> None:
    rows = {a_key(f"room{number}"): an_entry() for number in range(25)}
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save(rows)
        batches = [len(batch) async for batch in store.load(10)]
        assert batches == [10, 10, 5]
        assert await loaded(store, 10) == rows


async def test_an_entry_goes_on_ageing_while_nobody_runs(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(): an_entry(asked_at=clock.monotonic() - 10)})
    clock.pass_by(100)
    async with decisions(tmp_path, clock) as store:
        entry = (await loaded(store))[a_key()]
    assert clock.monotonic() - entry.asked_at == pytest.approx(110)


async def test_a_wall_clock_set_back_makes_no_entry_younger(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(): an_entry()})
    clock.pass_by(100)
    clock.unix -= 86_400
    async with decisions(tmp_path, clock) as store:
        assert clock.monotonic() - (await loaded(store))[a_key()].asked_at == pytest.approx(100)


async def test_a_wall_clock_set_ahead_and_back_revives_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(): an_entry(stale_if_error=100)})
    clock.unix += 86_400
    async with decisions(tmp_path, clock) as store:
        assert await loaded(store) == {}
    clock.unix -= 86_400
    async with decisions(tmp_path, clock) as store:
        assert await loaded(store) == {}


async def test_after_a_reboot_the_wall_clock_says_how_old_an_entry_is(tmp_path: Path) -> None:
    clock = FakeClock(boottime=5_000.0)
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(): an_entry(asked_at=4_990.0)})
    rebooted = FakeClock(boottime=20.0, unix=clock.unix + 300)
    async with decisions(tmp_path, rebooted, boot="boot-2") as store:
        entry = (await loaded(store))[a_key()]
    assert rebooted.monotonic() - entry.asked_at == pytest.approx(310)


@pytest.mark.parametrize("unix", [0.0, 1_700_000_000.0 - 3_600.0], ids=["1970", "set back"])
async def test_after_a_reboot_with_a_wall_clock_behind_only_what_restricts_is_used(tmp_path: Path, unix: float) -> None:
    clock = FakeClock()
    in_lobby = {a_key("e"): an_entry(body=LOBBY)}
    kept = {a_key("a"): an_entry(Verdict.DENY), Key(Endpoint.VALIDATE_ACCESS, "b"): an_entry(Verdict.PRIVATE)}
    gone = {a_key("c"): an_entry(), a_key("d"): an_entry(), NO_PART: an_entry(Verdict.CONFIG)}
    clock.pass_by(1)
    async with decisions(tmp_path, clock) as store:
        await store.save({**kept, **in_lobby, **gone})
    wrong = FakeClock(boottime=20.0, unix=unix)
    async with decisions(tmp_path, wrong, boot="boot-2") as store:
        found = await loaded_without_a_write(store)
        assert sorted(key.room for key in found) == ["a", "b", "e"]
        assert found[a_key("e")].lifetimes.total == 0, "it leads to the lobby, and is no answer"
        assert [entry.lifetimes.total for _, entry in await store.recall(a_key("e"))] == [0]
        assert await store.recall(a_key("c")) == []
        assert [key.room for key, _ in await store.recall(a_key("a"))] == ["a"]
        await store.save({a_key("d"): an_entry(asked_at=19.0)})
    wrong.pass_by(10)
    async with decisions(tmp_path, wrong, boot="boot-2") as store:  # the same boot, so nothing is doubtful any more
        found = await loaded(store)
        assert {key.room for key in found} == {"a", "b", "d", "e"}
        assert (found[a_key("e")].body, found[a_key("e")].lifetimes.total) == (LOBBY, 0)


async def loaded_without_a_write(store: Decisions) -> dict[Key, Entry]:
    """Everything that is read, up to the write that ends it."""
    found = {key: entry async for entries in store.first() for key, entry in entries}
    store._database.write = never  # type: ignore[method-assign]
    with contextlib.suppress(DiskError):
        async for entries in store.load():
            found |= dict(entries)
    del store._database.write
    return found


async def never(*_: object, **__: object) -> Any:
    raise DiskError("the disk is full")


async def test_a_wall_clock_set_forward_after_the_start_ages_what_is_from_before_the_boot(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(): an_entry(stale_if_error=1e6)})
    rebooted = FakeClock(boottime=20.0, unix=clock.unix + 25)  # as saved; it was off for hours
    async with decisions(tmp_path, rebooted, boot="boot-2") as store:
        before = (await loaded(store))[a_key()]
        assert before.asked_at == pytest.approx(-5.0)
        assert store.missed() == 0.0
        rebooted.unix += 36_000
        rebooted.pass_by(1)
        assert store.missed() == 36_000.0
        assert (await store.recall(a_key()))[0][1] == before  # by the time of the start, whenever a row is read
        rebooted.unix -= 72_000
        assert store.missed() == 36_000.0


async def test_a_start_is_remembered_as_a_time_that_was_seen(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(): an_entry()})
    clock.pass_by(50)
    async with decisions(tmp_path, clock) as store:
        await loaded(store)
    async with decisions(tmp_path, FakeClock(boottime=3.0, unix=clock.unix), boot="boot-2") as store:
        assert 3.0 - (await loaded(store))[a_key()].asked_at == pytest.approx(53)


async def test_what_is_past_its_lifetimes_does_not_come_back_and_leaves_the_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key("old"): an_entry(stale_if_error=60), a_key("new"): an_entry()})
    clock.pass_by(75)
    async with decisions(tmp_path, clock) as store:
        assert await store.recall(a_key("old")) == []
        assert [key.room for key in await loaded(store)] == ["new"]
    assert by_hand(tmp_path, "decisions.db", "SELECT room FROM decisions") == [("new",)]


async def test_old_rows_leave_the_disk_while_the_process_lives(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key("old"): an_entry(stale_if_error=60)})
        clock.pass_by(601)
        await store.save({})
        assert by_hand(tmp_path, "decisions.db", "SELECT room FROM decisions") == []


@pytest.mark.parametrize("seconds", [1_000, 4e6, 4e8])
async def test_a_deny_stays_however_old_it_is_and_whatever_the_clock_says(tmp_path: Path, seconds: float) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key("a"): an_entry(Verdict.DENY, stale_if_error=0), a_key("b"): an_entry()})
    clock.unix += seconds
    clock.boottime += 4_000
    for boot in ("boot-1", "boot-2", "boot-2"):
        async with decisions(tmp_path, clock, boot=boot) as store:
            assert [key.room for key in await loaded(store)] == ["a"]


async def test_a_key_that_has_no_utf8_stays_in_memory_and_harms_no_other(tmp_path: Path) -> None:
    async with decisions(tmp_path, FakeClock()) as store:
        odd = a_key("\ud800")
        await store.save({odd: an_entry(), a_key("well"): an_entry()})
        assert [key.room for key in await loaded(store)] == ["well"]
        assert await store.recall(odd) == []
        await store.save({odd: None})


async def test_a_damaged_row_is_left_out_said_and_removed(tmp_path: Path) -> None:
    facts, clock = Facts(), FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(room): an_entry() for room in ("body", "verdict", "time", "type", "whole")})
    flip = """UPDATE decisions SET entry = CAST(substr(entry, 1, ?1 - 1) || x'7f' || substr(entry, ?1 + 1) AS BLOB)
        WHERE room = ?2"""
    for room, place in (("verdict", 5), ("time", 10), ("body", 60)):
        by_hand(tmp_path, "decisions.db", flip, place, room)
    by_hand(tmp_path, "decisions.db", "UPDATE decisions SET entry = 5 WHERE room = 'type'")
    async with decisions(tmp_path, clock, facts) as store:
        assert [key.room for key in await loaded(store)] == ["whole"]
        assert [key.room for key in await loaded(store)] == ["whole"]
    assert facts.all == [Notice("decisions.db: 4 damaged rows are left out", level="error")]


@pytest.mark.parametrize("part", ["room", "room_jid", "meeting_id", "subject", "token"])
async def test_a_row_whose_key_is_damaged_is_nobodys(tmp_path: Path, part: str) -> None:
    other = EVERY_PART._replace(room="other")
    for change in ("'x'", f"{part} || 'x'", "NULL", "7", "CAST(x'ff41' AS TEXT)", "CAST('r' AS BLOB)"):
        if part == "room" and change == "NULL":
            continue  # the column does not take it
        facts, folder = Facts(), tmp_path / str(len(list(tmp_path.iterdir())))
        async with decisions(folder, FakeClock()) as store:
            await store.save({EVERY_PART: an_entry(), a_key(): an_entry(Verdict.DENY), other: an_entry(Verdict.DENY)})
        by_hand(folder, "decisions.db", f"UPDATE decisions SET {part} = {change} WHERE room IN ('r', 'other')")
        async with decisions(folder, FakeClock(), facts) as store:
            assert list(await loaded(store)) == [a_key()]
        assert facts.all == [Notice("decisions.db: 1 damaged rows are left out", level="error")] * 2


async def test_an_entry_in_the_row_of_another_key_is_nobodys(tmp_path: Path) -> None:
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key("a"): an_entry(), a_key("b"): an_entry(Verdict.DENY)})
    by_hand(tmp_path, "decisions.db", "UPDATE decisions SET entry = (SELECT entry FROM decisions WHERE room = 'a')")
    async with decisions(tmp_path, FakeClock()) as store:
        assert list(await loaded(store)) == [a_key("a")]


async def test_a_file_of_version_1_is_taken_over_and_a_damaged_key_in_it_is_noticed(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("version_1.db"), tmp_path / "decisions.db")
    rows = "SELECT room, subject, verdict FROM decisions ORDER BY room"
    assert by_hand(tmp_path, "decisions.db", rows) == [
        ("board", "jid ann@example.org", "allow"),
        ("board", "jid mallory@example.org", "deny"),
        ("retro", "jid bob@example.org", "allow"),
        ("standup", None, "config"),
    ]
    by_hand(tmp_path, "decisions.db", "UPDATE decisions SET subject = 'jid mallory@example.org' WHERE room = 'retro'")
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        found = await loaded(store)
        assert {key.room: entry.verdict for key, entry in found.items() if key.subject != "jid ann@example.org"} == {
            "board": Verdict.DENY,
            "standup": Verdict.CONFIG,
        }
        assert found[a_key("board")] == an_entry()
        assert await store.recall(a_key("board")) != []
        await store.save({a_key("new"): an_entry()})
    clock.pass_by(90_000)
    async with decisions(tmp_path, clock) as store:
        assert [entry.verdict for entry in (await loaded(store)).values()] == [Verdict.DENY]


async def test_denies_lobbies_and_rooms_with_private_answers_are_read_first(tmp_path: Path) -> None:
    rows = {a_key(f"{number % 7}", f"jid {number}"): an_entry(Verdict.DENY) for number in range(25)}
    others = {
        Key(Endpoint.VALIDATE_ACCESS, "5"): an_entry(Verdict.PRIVATE),
        a_key("5", "jid 100"): an_entry(body=LOBBY),
    }
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key(f"{number}"): an_entry() for number in range(25)})
        await store.save({**rows, **others})
        batches = [batch async for batch in store.first(10)]
        assert [len(batch) for batch in batches] == [10, 10, 5, 1, 1]
        assert {key: entry for batch in batches for key, entry in batch} == rows | others
        assert not [key async for batch in store.load() for key, _ in batch if key in rows or key in others]


async def test_that_a_user_has_to_wait_in_the_lobby_outlives_the_answer_that_said_so(tmp_path: Path) -> None:
    clock = FakeClock()
    expired = an_entry(body=LOBBY)._replace(lifetimes=Lifetimes(0, 0, 0))
    rows = {a_key("a"): an_entry(body=LOBBY), a_key("b"): an_entry(), a_key("no-store"): expired}
    async with decisions(tmp_path, clock) as store:
        await store.save(rows)
        clock.pass_by(SWEEP_EVERY)
        await store.save({})
    clock.pass_by(90_000)
    async with decisions(tmp_path, clock) as store:
        assert {key.room for key in await loaded(store)} == {"a", "no-store"}
        await store.save({a_key("a"): an_entry(asked_at=clock.monotonic())})
    clock.pass_by(90_000)
    async with decisions(tmp_path, clock) as store:
        assert {key.room for key in await loaded(store)} == {"no-store"}, "the newer answer let this user in"


async def test_a_file_of_version_2_keeps_who_has_to_wait_in_the_lobby(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key("a"): an_entry(body=LOBBY), a_key("b"): an_entry(), a_key("c"): an_entry(Verdict.DENY)})
    for statement in (
        "UPDATE decisions SET verdict = 'allow', kept_until = settled + 3600 WHERE verdict = 'lobby'",
        "DROP INDEX first",
        "CREATE INDEX first ON decisions (verdict) WHERE verdict IN ('deny', 'private')",
        "PRAGMA user_version = 2",
    ):
        by_hand(tmp_path, "decisions.db", statement)
    clock.pass_by(90_000)
    async with decisions(tmp_path, clock) as store:
        assert {key.room for key in await loaded(store)} == {"a", "c"}


async def test_a_replaced_content_is_there_or_the_one_before_it(tmp_path: Path) -> None:
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key("a"): an_entry(Verdict.DENY), a_key("b"): an_entry()})
        await store.replace({a_key("c"): an_entry(Verdict.DENY)})
        assert [key.room for key in await loaded(store)] == ["c"]
        await store._database.write(forbid_inserts, durable=False)
        with pytest.raises(DiskError):
            await store.replace({a_key("d"): an_entry(Verdict.DENY)})
        assert [key.room for key in await loaded(store)] == ["c"]


def forbid_inserts(connection: Connection) -> None:
    connection.execute(
        "CREATE TEMP TRIGGER forbid BEFORE INSERT ON decisions WHEN new.room = 'd'"
        " BEGIN SELECT RAISE(ABORT, 'no more'); END"
    )


async def test_what_keeps_somebody_out_or_in_the_lobby_reaches_the_file_with_a_sync_and_allows_without(
    tmp_path: Path,
) -> None:
    synced = []

    class Watched(Database):
        async def write(self, job: Callable[[Connection], T], *, durable: bool, frees: bool = False) -> T:
            synced.append(durable)
            return await super().write(job, durable=durable, frees=frees)

    clock, facts = FakeClock(), Facts()
    database = Watched(tmp_path, LAYOUT, clock, facts)
    store = Decisions(database, clock, "boot-1", facts)
    await store.save({a_key(): an_entry()})
    await store.save({a_key(): an_entry(), a_key("b"): an_entry(Verdict.DENY)})
    await store.save({a_key(): None}, durable=True)
    await store.save({a_key(): an_entry(body=LOBBY)})
    assert len(await loaded(store)) == 2  # and what has expired is deleted
    await database.close()
    assert synced == [False, True, True, True, True]


def test_an_entry_shows_no_body() -> None:
    assert isinstance(an_entry(body=b"secret"), Entry)
    assert "secret" not in repr(an_entry(body=b"secret"))
