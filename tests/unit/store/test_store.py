"""What is on disk comes back as it was, never younger; a file that cannot be used is put aside, and said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sidecar.clock import SystemClock
from sidecar.core.events import Limits, Mark, Pending, least_volume
from sidecar.core.model import Endpoint, Entry, Key, Verdict
from sidecar.errors import DiskError, StartError
from sidecar.facts import DiskChanged, Notice
from sidecar.store import Store, read_boot_id
from sidecar.store.database import Database
from sidecar.store.decisions import LAYOUT, Decisions
from sidecar.store.events import LAYOUT as OUTBOX
from sidecar.store.events import Events
from sidecar.store.file import Connection
from tests.unit.builders import a_key, an_event
from tests.unit.disk import Facts, FakeClock, an_entry, decisions, events, loaded, until

T = TypeVar("T")

EVERY_PART = Key(Endpoint.VALIDATE_ACCESS, "r", "r@muc", "1", 'id "7"', "ab" * 32)
NO_PART = Key(Endpoint.ROOM_CREATED, "r")


def by_hand(folder: Path, name: str, statement: str, *values: Any) -> list[Any]:
    """What another program sees or does in the file."""
    connection = sqlite3.connect(folder / name)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


# ---- decisions


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
async def test_after_a_reboot_with_a_wall_clock_behind_only_denies_are_used(tmp_path: Path, unix: float) -> None:
    clock = FakeClock()
    kept = {a_key("a"): an_entry(Verdict.DENY), Key(Endpoint.VALIDATE_ACCESS, "b"): an_entry(Verdict.PRIVATE)}
    gone = {a_key("c"): an_entry(), a_key("d"): an_entry(), NO_PART: an_entry(Verdict.CONFIG)}
    clock.pass_by(1)
    async with decisions(tmp_path, clock) as store:
        await store.save({**kept, **gone})
    wrong = FakeClock(boottime=20.0, unix=unix)
    async with decisions(tmp_path, wrong, boot="boot-2") as store:
        assert [key.room for key in await loaded_without_a_write(store)] == ["a", "b"]
        assert await store.recall(a_key("c")) == []
        assert [key.room for key, _ in await store.recall(a_key("a"))] == ["a"]
        await store.save({a_key("d"): an_entry(asked_at=19.0)})
    wrong.pass_by(10)
    async with decisions(tmp_path, wrong, boot="boot-2") as store:  # the same boot, so nothing is doubtful any more
        assert {key.room for key in await loaded(store)} == {"a", "b", "d"}


async def loaded_without_a_write(store: Decisions) -> dict[Key, Entry]:
    """Everything that is read, up to the write that ends it."""
    found = {key: entry async for entries in store.denies() for key, entry in entries}
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


async def test_denies_and_rooms_with_private_answers_are_read_first(tmp_path: Path) -> None:
    rows = {a_key(f"{number % 7}", f"jid {number}"): an_entry(Verdict.DENY) for number in range(25)}
    private = {Key(Endpoint.VALIDATE_ACCESS, "5"): an_entry(Verdict.PRIVATE)}
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key(f"{number}"): an_entry() for number in range(25)})
        await store.save({**rows, **private})
        batches = [batch async for batch in store.denies(10)]
        assert [len(batch) for batch in batches] == [10, 10, 5, 1]
        assert {key: entry for batch in batches for key, entry in batch} == rows | private
        assert not [key async for batch in store.load() for key, _ in batch if key in rows or key in private]


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


async def test_denies_reach_the_file_with_a_sync_and_allows_without(tmp_path: Path) -> None:
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
    await database.close()
    assert synced == [False, True, True]


# ---- files


async def test_files_are_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "var" / "state"
    async with Store(folder, FakeClock(), "boot", Facts()) as store:
        assert store.decisions is not None
        await store.decisions.save({a_key(): an_entry()})
        await store.events.add([an_event()])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert {"decisions.db", "decisions.db-wal", "outbox.db", "outbox.db-wal"} <= set(modes)
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_folder_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "decisions.db").touch(0o644)
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key(): an_entry()})
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "decisions.db").stat().st_mode) == 0o600


async def test_a_second_sidecar_in_the_same_folder_does_not_start_and_says_why(tmp_path: Path) -> None:
    async with Store(tmp_path, FakeClock(), "boot", Facts()):
        for file in (None, tmp_path / "lock"):
            if file is not None:
                file.unlink()  # as somebody does whom it stops
            with pytest.raises(StartError, match=r"another sidecar.* uses"):
                async with Store(tmp_path, FakeClock(), "boot", Facts(), lock_within=0.0):
                    pass
    async with Store(tmp_path, FakeClock(), "boot", Facts()):
        pass


async def test_the_start_that_was_refused_names_the_process_and_leaves_its_lock_alone(tmp_path: Path) -> None:
    async with Store(tmp_path, FakeClock(), "boot", Facts()):
        for _ in range(2):
            with pytest.raises(StartError, match=rf"another sidecar \(pid {os.getpid()}\) uses {tmp_path}; stop it"):
                async with Store(tmp_path, FakeClock(), "boot", Facts(), lock_within=0.0):
                    pass


async def test_a_start_waits_for_the_one_before_to_end(tmp_path: Path) -> None:
    second = Store(tmp_path, FakeClock(), "boot", Facts(), lock_within=5.0)
    async with Store(tmp_path, FakeClock(), "boot", Facts()) as first:
        await first.events.add([an_event(1)])
        starting = asyncio.ensure_future(second.__aenter__())
        await asyncio.sleep(0)
        assert not starting.done()
    await starting
    assert (await second.events.stock()).pending == 1
    await second.__aexit__(None, None, None)


async def test_without_a_folder_events_live_in_memory_and_decisions_nowhere(tmp_path: Path) -> None:
    async with Store(None, SystemClock(), read_boot_id(), Facts()) as store:
        assert store.decisions is None
        assert await store.events.add([an_event()]) == [True]
        assert (await store.events.stock()).pending == 1


@pytest.mark.parametrize(
    "content",
    [b"this is no database, it never was one, and it never will be" * 100, b"SQLite format 3\0" + b"\xa5" * 8000],
)
async def test_a_corrupt_file_is_moved_aside_and_a_new_one_is_begun(tmp_path: Path, content: bytes) -> None:
    facts = Facts()
    (tmp_path / "decisions.db").write_bytes(content)
    async with decisions(tmp_path, FakeClock(), facts) as store:
        assert await loaded(store) == {}
        await store.save({a_key(): an_entry()})
        assert len(await loaded(store)) == 1
    assert (tmp_path / "decisions.db.corrupt-20231114T221320Z").read_bytes() == content
    assert [fact.level for fact in facts.all if isinstance(fact, Notice)] == ["error"]


async def test_a_file_of_a_newer_version_is_moved_aside_and_the_start_goes_on_cold(tmp_path: Path) -> None:
    facts = Facts()
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key(): an_entry()})
    by_hand(tmp_path, "decisions.db", "PRAGMA user_version = 99")
    async with decisions(tmp_path, FakeClock(), facts) as store:
        assert await loaded(store) == {}
        assert store.generation == 1
    assert (tmp_path / "decisions.db.newer-20231114T221320Z").exists()
    assert [fact.level for fact in facts.all if isinstance(fact, Notice)] == ["error"]


async def test_a_page_that_goes_bad_while_running_costs_that_file_and_not_the_other(tmp_path: Path) -> None:
    facts, clock = Facts(), FakeClock()
    rows = {a_key(f"room{number}"): an_entry(body=b"x" * 500) for number in range(200)}
    async with decisions(tmp_path, clock) as store:
        await store.save(rows)
    with (tmp_path / "decisions.db").open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xa5" * 4096 * 20)
    async with decisions(tmp_path, clock, facts) as store, events(tmp_path, clock) as outbox:
        before = store.generation
        with pytest.raises(DiskError):
            await loaded(store)
        assert await outbox.add([an_event()]) == [True]
        await until(lambda: DiskChanged("decisions.db", usable=True) in facts.all)
        await store.save({a_key(): an_entry()})
        assert store.generation == before + 1


@pytest.mark.parametrize("while_running", [True, False])
async def test_what_can_be_read_of_a_corrupt_outbox_is_saved(tmp_path: Path, while_running: bool) -> None:
    facts, clock = Facts(), FakeClock()
    async with events(tmp_path, clock, facts) as outbox:
        await outbox.add([an_event(number, body=b"x" * 500) for number in range(400)])
        before = (await outbox.page("standup", 0, 400))[-1].number
        if not while_running:
            await outbox._database.close()
        by_hand(tmp_path, "outbox.db", "PRAGMA wal_checkpoint(TRUNCATE)")
        with (tmp_path / "outbox.db").open("r+b") as file:
            file.seek(30 * 4096)
            file.write(b"\xa5" * 4096)
        if while_running:
            await until_it_fails(outbox)
        async with events(tmp_path, clock, facts) as reopened:
            saved = [pending.number for pending in await reopened.page("standup", 0, 400)]
            assert 380 < len(saved) < 400
            assert saved == sorted(saved)
            await reopened.add([an_event(1000)])
            assert (await reopened.page("standup", before, 10))[0].number > before
    assert len([fact for fact in facts.all if isinstance(fact, Notice) and "rows were saved" in fact.message]) == 1


async def until_it_fails(outbox: Events) -> None:
    """Read and write until the bad page has been met, and a new file was begun."""
    before = outbox.generation
    async with asyncio.timeout(5.0):
        while outbox.generation == before:
            with contextlib.suppress(DiskError):
                await outbox.page("standup", 0, 400)
            with contextlib.suppress(DiskError):
                await outbox.add([])
            await asyncio.sleep(0.01)


async def test_only_the_last_few_files_moved_aside_are_kept(tmp_path: Path) -> None:
    clock = FakeClock()
    for _ in range(8):
        clock.pass_by(60)
        (tmp_path / "decisions.db").write_bytes(b"no database" * 100)
        async with decisions(tmp_path, clock) as store:
            assert await loaded(store) == {}
    assert len(list(tmp_path.glob("*.corrupt-*"))) == 5


@pytest.mark.parametrize("gone", [("",), ("-wal",), ("", "-wal", "-shm")])
async def test_a_file_deleted_while_open_is_written_again_and_nothing_is_lost(
    tmp_path: Path, gone: tuple[str, ...]
) -> None:
    facts, clock = Facts(), FakeClock()
    async with events(tmp_path, clock, facts) as outbox:
        await outbox.add([an_event(1)])
        for suffix in gone:
            (tmp_path / f"outbox.db{suffix}").unlink()
        assert await outbox.add([an_event(2)]) == [True]
        assert (await outbox.stock()).pending == 2
    assert by_hand(tmp_path, "outbox.db", "SELECT idempotency_key FROM events") == [("standup-1",), ("standup-2",)]
    assert stat.S_IMODE((tmp_path / "outbox.db").stat().st_mode) == 0o600
    assert [type(fact) for fact in facts.all] == [Notice]


async def test_a_file_put_in_place_of_an_open_one_is_kept_aside(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1)])
        (tmp_path / "other").write_bytes(b"something else")
        (tmp_path / "other").rename(tmp_path / "outbox.db")
        await outbox.add([an_event(2)])
        assert (await outbox.stock()).pending == 2
    assert (tmp_path / "outbox.db.replaced-20231114T221320Z").read_bytes() == b"something else"


async def test_the_log_of_a_deleted_file_is_not_replayed_into_a_new_one(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1)])
        stale = (tmp_path / "outbox.db-wal").read_bytes()
    (tmp_path / "outbox.db").unlink()
    (tmp_path / "outbox.db-wal").write_bytes(stale)
    async with events(tmp_path, FakeClock()) as outbox:
        assert (await outbox.stock()).pending == 0


async def test_a_folder_that_cannot_be_used_is_one_alarm_until_it_is_usable_again(tmp_path: Path) -> None:
    facts, folder = Facts(), tmp_path / "state"
    folder.write_text("a file where the folder should be")
    async with events(folder, FakeClock(), facts) as outbox:
        for number in range(5):
            with pytest.raises(DiskError):
                await outbox.add([an_event(number)])
            await asyncio.sleep(0.02)
        assert [type(fact) for fact in facts.all] == [DiskChanged]
        folder.unlink()
        await until(lambda: len(facts.all) == 2)
        assert facts.all[1] == DiskChanged("outbox.db", usable=True)
        assert await outbox.add([an_event()]) == [True]
        assert by_hand(folder, "outbox.db", "SELECT count(*) FROM probe") == [(0,)]


async def test_while_the_disk_is_unusable_nobody_waits_for_it(tmp_path: Path) -> None:
    facts, folder = Facts(), tmp_path / "state"
    folder.write_text("")
    async with events(folder, FakeClock(), facts, retry_every=60.0) as outbox:
        with pytest.raises(DiskError):
            await outbox.add([an_event()])
        folder.unlink()
        with pytest.raises(DiskError):
            await outbox.add([an_event()])
    assert not folder.exists()


# ---- events


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


def test_an_entry_shows_no_body() -> None:
    assert isinstance(an_entry(body=b"secret"), Entry)
    assert "secret" not in repr(an_entry(body=b"secret"))
