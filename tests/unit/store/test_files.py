"""A file that cannot be used is moved aside, with a line in the log; nothing that can be read is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.clock import SystemClock
from sidecar.core.model import Entry, Key, Verdict
from sidecar.errors import DiskError, StartError
from sidecar.facts import DiskChanged, Notice
from sidecar.store import Store, read_boot_id
from sidecar.store.events import Events
from tests.unit.builders import a_key, an_event
from tests.unit.disk import Facts, FakeClock, an_entry, by_hand, decisions, events, loaded, until


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
    assert [fact.level for fact in facts.all if isinstance(fact, Notice)] == 2 * ["error"]


async def test_a_file_of_a_newer_version_is_moved_aside_and_the_start_goes_on_cold(tmp_path: Path) -> None:
    facts = Facts()
    async with decisions(tmp_path, FakeClock()) as store:
        await store.save({a_key(): an_entry()})
    by_hand(tmp_path, "decisions.db", "PRAGMA user_version = 99")
    async with decisions(tmp_path, FakeClock(), facts) as store:
        assert await loaded(store) == {}
        assert store.generation == 1
    assert (tmp_path / "decisions.db.newer-20231114T221320Z").exists()
    assert [fact.level for fact in facts.all if isinstance(fact, Notice)] == 2 * ["error"]


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


@pytest.mark.parametrize("page", ["a table page", "none"])
async def test_the_denies_of_a_damaged_file_are_saved_and_it_is_known_whether_some_are_lost(
    tmp_path: Path, page: str
) -> None:
    clock, facts = FakeClock(), Facts()
    rows = {a_key(f"room-{number}"): an_entry(Verdict.DENY) for number in range(400)}
    async with decisions(tmp_path, clock) as store:
        await store.save(rows)
        await store.save({a_key(f"open-{number}"): an_entry() for number in range(400)})
    if page == "none":
        by_hand(tmp_path, "decisions.db", "PRAGMA user_version = 99")
    else:
        root = by_hand(
            tmp_path, "decisions.db", "SELECT pageno FROM dbstat WHERE name = 'decisions' AND pagetype = 'leaf'"
        )
        with (tmp_path / "decisions.db").open("r+b") as file:
            file.seek((root[5][0] - 1) * 4096)
            file.write(b"\xa5" * 4096)
    async with decisions(tmp_path, clock, facts) as store:
        saved: dict[Key, Entry] = {}
        async with asyncio.timeout(5.0):
            while not saved:
                with contextlib.suppress(DiskError):
                    saved = await loaded(store)
        lost = page != "none"
        assert saved == {key: entry for key, entry in rows.items() if key in saved}
        assert (360 < len(saved) < 400) if lost else len(saved) == 400
        assert await store.lacks_denies() is lost
    async with decisions(tmp_path, clock) as store:
        assert await store.lacks_denies() is lost
    for aside in tmp_path.glob("decisions.db.*Z"):
        aside.unlink()
    async with decisions(tmp_path, clock) as store:
        assert len(await loaded(store)) == len(saved)
        assert not await store.lacks_denies()


async def test_a_damaged_row_is_not_saved(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key("a"): an_entry(Verdict.DENY), a_key("b"): an_entry(Verdict.DENY)})
    by_hand(tmp_path, "decisions.db", "UPDATE decisions SET subject = 'jid eve@example.org' WHERE room = 'a'")
    by_hand(tmp_path, "decisions.db", "PRAGMA user_version = 99")
    async with decisions(tmp_path, clock) as store:
        assert list(await loaded(store)) == [a_key("b")]


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


def said(facts: Facts) -> list[str]:
    return [fact.message for fact in facts.all if isinstance(fact, Notice)]


async def fill(outbox: Events, number: int, body: bytes = b"{}") -> None:
    """In so many transactions that SQLite writes its log back to the file."""
    for first in range(0, number, 40):
        await outbox.add([an_event(each, body=body) for each in range(first, first + 40)])


def filled_with_garbage(file: Path) -> None:
    file.write_bytes(os.urandom(file.stat().st_size))


def cut_off(file: Path) -> None:
    os.truncate(file, 4096)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


@pytest.mark.parametrize("name", ["outbox.db", "outbox.db-wal"])
@pytest.mark.parametrize("damage", [filled_with_garbage, cut_off, emptied])
async def test_a_file_overwritten_while_open_is_noticed_before_the_next_event_is_accepted(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    """The open connection reads from its cache and its log, and would go on as if nothing had happened."""
    facts = Facts()
    async with events(tmp_path, FakeClock(), facts) as outbox:
        await fill(outbox, 4_000)
        assert (tmp_path / "outbox.db").stat().st_size > 500_000
        damage(tmp_path / name)
        assert await outbox.add([an_event(4_000)]) == [True]
        assert (await outbox.stock()).pending == 4_001
        assert "written again" in said(facts)[-1]
    assert by_hand(tmp_path, "outbox.db", "SELECT count(*) FROM events") == [(4_001,)]


async def test_a_file_overwritten_after_the_last_event_is_written_again_at_the_end(tmp_path: Path) -> None:
    facts = Facts()
    async with events(tmp_path, FakeClock(), facts) as outbox:
        await fill(outbox, 4_000)
        filled_with_garbage(tmp_path / "outbox.db")
    assert "written again" in said(facts)[-1]
    assert by_hand(tmp_path, "outbox.db", "SELECT count(*) FROM events") == [(4_000,)]


async def test_of_an_overwritten_file_too_large_to_be_in_memory_the_loss_is_said_and_the_next_events_are_safe(
    tmp_path: Path,
) -> None:
    facts = Facts()
    async with events(tmp_path, FakeClock(), facts) as outbox:
        await fill(outbox, 4_000, body=b"x" * 2_000)
        filled_with_garbage(tmp_path / "outbox.db")
        assert await outbox.add([an_event(4_000)]) == [True]
        assert "not all of it can be read" in said(facts)[-1]
        generation = outbox.generation
    async with events(tmp_path, FakeClock()) as reopened:
        assert (await reopened.page("standup", 0, 4_001))[-1].event == an_event(4_000)
    assert generation == 2


async def test_who_only_touches_an_open_file_or_writes_to_it_as_sqlite_does_changes_nothing_else(
    tmp_path: Path,
) -> None:
    facts = Facts()
    async with events(tmp_path, FakeClock(), facts) as outbox:
        await outbox.add([an_event(number) for number in range(3)])
        by_hand(tmp_path, "outbox.db", "DELETE FROM events WHERE number = 2")
        for name in ("outbox.db", "outbox.db-wal"):
            os.utime(tmp_path / name)
        await outbox.add([an_event(3)])
        assert (await outbox.stock()).pending == 3
    assert facts.all == []


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
