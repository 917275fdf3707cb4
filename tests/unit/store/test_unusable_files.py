"""A file that cannot be used is set aside under a name that says why and when, and everything in it that can be read
is saved. The daemon goes on with a new file; nothing is deleted."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.core.model import Endpoint, Event
from sidecar.errors import DiskError
from sidecar.facts import Notice
from sidecar.store import Store
from tests.unit.builders import an_event
from tests.unit.disk import Facts, FakeClock, decisions, events, loaded

STAMP = "20231114T221320Z"
EVENTS = 300
STEP = int(os.environ.get("DAMAGE_STEP", "45"))
"""Pages from one try to the next."""


def bookmarks(file: Path, *more: str) -> None:
    """The file of another application, with a table whose name is ours."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, title TEXT)")
        connection.execute("INSERT INTO events (title) VALUES ('a bookmark')")
        for statement in more:
            connection.execute(statement)


def not_utf8(file: Path) -> None:
    """The name of a table is no UTF-8."""
    bookmarks(file, "CREATE TABLE ours (x)", "PRAGMA writable_schema=ON")
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_master SET name = CAST(x'ff6f' AS TEXT) WHERE name = 'ours'")


def later_sqlite(file: Path) -> None:
    """Of a version of SQLite that does not exist yet."""
    bookmarks(file)
    with file.open("r+b") as opened:
        opened.seek(18)
        opened.write(b"\3\3")


def later_schema(file: Path) -> None:
    """Of a schema format that does not exist yet."""
    bookmarks(file)
    with file.open("r+b") as opened:
        opened.seek(44)
        opened.write(b"\0\0\0\x09")


UNUSABLE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "another application's": ("foreign", bookmarks),
    "another application's, of our version": ("foreign", lambda file: bookmarks(file, "PRAGMA user_version = 1")),
    "another application's, of version -5": ("foreign", lambda file: bookmarks(file, "PRAGMA user_version = -5")),
    "another application's, with a journal": ("foreign", lambda file: bookmarks(file, "PRAGMA journal_mode = PERSIST")),
    "a table whose name is no text": ("*", not_utf8),
    "the version of the future": ("newer", lambda file: bookmarks(file, "PRAGMA user_version = 9")),
    "the SQLite of the future": ("corrupt", later_sqlite),
    "the schema of the future": ("corrupt", later_schema),
    "a text": ("corrupt", lambda file: file.write_text("state_dir: /var/lib\n" * 100)),
    "a short text": ("corrupt", lambda file: file.write_text("x")),
    "zeros": ("corrupt", lambda file: file.write_bytes(bytes(8192))),
    "random": ("corrupt", lambda file: file.write_bytes(os.urandom(8192))),
    "a folder": ("foreign", lambda file: file.mkdir()),
    "a folder with files": ("foreign", lambda file: shutil.copytree(Path(__file__).parent, file)),
    "a pipe": ("foreign", os.mkfifo),
}


@pytest.mark.parametrize("name", ["outbox.db", "decisions.db"])
@pytest.mark.parametrize("what", UNUSABLE)
async def test_what_is_no_file_of_ours_is_set_aside_unchanged_and_said(tmp_path: Path, what: str, name: str) -> None:
    kind, make = UNUSABLE[what]
    file, facts = tmp_path / name, Facts()
    make(file)
    inode = file.stat().st_ino
    before = file.read_bytes() if file.is_file() else b""
    async with Store(tmp_path, FakeClock(), "boot-1", facts) as store:
        assert store.decisions is not None
        assert await loaded(store.decisions) == {}
        assert await store.events.add([an_event()]) == [True]
        assert store.troubles == ()
        (aside,) = tmp_path.glob(f"{name}.{kind}-{STAMP}")
        assert store.aside == (aside.name,)
    assert aside.stat().st_ino == inode
    if aside.is_file():
        assert aside.read_bytes() == before
    said = [fact.message for fact in facts.all if isinstance(fact, Notice) and fact.level == "error"]
    assert f"moved aside as {aside.name}" in said[0]
    async with Store(tmp_path, FakeClock(), "boot-1", Facts()) as store:
        assert store.decisions is not None
        assert await loaded(store.decisions) == {}
        assert (await store.events.stock()).pending == 1
        assert store.aside == (aside.name,)


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
async def test_a_folder_with_the_name_of_a_log_is_set_aside_and_the_file_stays(tmp_path: Path, suffix: str) -> None:
    async with events(tmp_path, FakeClock()) as outbox:
        await outbox.add([an_event(1)])
    (tmp_path / f"outbox.db{suffix}").mkdir()
    async with events(tmp_path, FakeClock()) as outbox:
        assert (await outbox.stock()).pending == 1
        assert await outbox.add([an_event(2)]) == [True]
    assert (tmp_path / f"outbox.db{suffix}.foreign-{STAMP}").is_dir()


async def test_a_link_to_a_disk_that_is_not_mounted_stays_and_is_used_when_it_is(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "outbox.db").symlink_to(tmp_path / "volume" / "outbox.db")
    async with events(tmp_path / "state", FakeClock()) as outbox:
        with pytest.raises(DiskError):
            await outbox.add([an_event(1)])
    (tmp_path / "volume").mkdir()
    async with events(tmp_path / "state", FakeClock()) as outbox:
        assert await outbox.add([an_event(1)]) == [True]
    assert (tmp_path / "volume" / "outbox.db").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads what others may not, and only root can become somebody else")
async def test_a_file_that_belongs_to_another_user_is_set_aside(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with events(state, FakeClock()) as outbox:
        await outbox.add([an_event(1)])
    (state / "outbox.db").chmod(0o600)
    for folder in (*tmp_path.parents, tmp_path):
        if folder.stat().st_mode & 0o005 != 0o005 and folder.name.startswith(("pytest-", "test_")):
            folder.chmod(0o755)
    os.chown(state, 65534, 65534)
    os.seteuid(65534)
    try:
        async with events(state, FakeClock()) as outbox:
            assert await outbox.add([an_event(2)]) == [True]
    finally:
        os.seteuid(0)
    assert (state / f"outbox.db.unreadable-{STAMP}").stat().st_uid == 0


# ---- what can be saved


def an_outbox(number: int) -> Event:
    """Rows of all sizes, some of them on pages of their own."""
    return an_event(number, f"room-{number % 7}", body=b"%d" % number + b"x" * (number * 37 % 9000))


async def saved(folder: Path) -> set[str]:
    """The keys of the events that are there, each checked."""
    async with events(folder, FakeClock()) as outbox:
        assert await outbox.add([an_event(9999)]) == [True]
        pages = [await outbox.page(room, 0, EVENTS) for room in await outbox.rooms("", EVENTS)]
        whole = [pending.event for page in pages for pending in page if not pending.damaged]
    return {event.idempotency_key for event in whole} - {an_event(9999).idempotency_key}


@pytest.fixture
async def full(tmp_path: Path) -> Path:
    """A file with events, and none of them in a log."""
    async with events(tmp_path / "full", FakeClock()) as outbox:
        await outbox.add([an_outbox(number) for number in range(EVENTS)])
    return tmp_path / "full" / "outbox.db"


async def test_of_a_file_that_was_cut_off_at_any_page_the_rows_before_are_saved(full: Path, tmp_path: Path) -> None:
    content, kept = full.read_bytes(), []
    pages = len(content) // 4096
    for page in (*range(1, 6), *range(6, pages, STEP)):
        for size in (page * 4096 - 1000, page * 4096):
            folder = tmp_path / f"cut-{size}"
            folder.mkdir()
            (folder / "outbox.db").write_bytes(content[:size])
            kept.append(len(await saved(folder)))
            (aside,) = folder.glob("outbox.db.*-2*Z")
            assert aside.stat().st_size == size
            shutil.rmtree(folder)
    assert kept == sorted(kept)
    assert kept[-1] > EVENTS * (pages - STEP) / pages - 20


async def test_whichever_page_is_damaged_all_rows_on_other_pages_are_saved(full: Path, tmp_path: Path) -> None:
    content, lost = full.read_bytes(), []
    for page in range(1, len(content) // 4096, STEP):
        folder = tmp_path / f"page-{page}"
        folder.mkdir()
        (folder / "outbox.db").write_bytes(content[: page * 4096] + b"\xa5" * 4096 + content[page * 4096 + 4096 :])
        lost.append(EVENTS - len(await saved(folder)))
        shutil.rmtree(folder)
    assert sorted(lost)[len(lost) // 2] <= 2, "the page of one large body"


async def test_an_emptied_file_whose_log_is_whole_loses_nothing(tmp_path: Path) -> None:
    async with events(tmp_path / "a", FakeClock()) as outbox:
        await outbox.add([an_outbox(number) for number in range(20)])
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "outbox.db").write_bytes(b"")
    assert len(await saved(tmp_path / "b")) == 20
    assert (tmp_path / "b" / f"outbox.db.empty-{STAMP}-wal").stat().st_size > 0


async def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").touch()
    assert await saved(tmp_path) == set()
    assert list(tmp_path.glob("*Z*")) == []


async def test_the_events_of_a_later_version_are_taken_over(full: Path) -> None:
    with contextlib.closing(sqlite3.connect(full)) as connection, connection:
        connection.execute("ALTER TABLE events ADD COLUMN mood TEXT")
        connection.execute("PRAGMA user_version = 7")
    assert len(await saved(full.parent)) == EVENTS


async def test_a_table_that_is_gone_while_running_costs_only_itself(tmp_path: Path) -> None:
    async with events(tmp_path, FakeClock(), facts := Facts()) as outbox:
        await outbox.add([an_event(1)])
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as connection, connection:
            connection.execute("DROP TABLE delivered")
        with contextlib.suppress(DiskError):
            await outbox.add([an_event(2, endpoint=Endpoint.USER_LEFT)])
        while outbox.generation < 2:
            with contextlib.suppress(DiskError):
                await outbox.stock()
        assert (await outbox.stock()).pending == 1
    assert [fact for fact in facts.all if isinstance(fact, Notice) and "it has no delivered" in fact.message]


async def test_a_file_set_aside_does_not_count_when_somebody_has_deleted_it(tmp_path: Path) -> None:
    (tmp_path / "decisions.db").write_text("no database")
    async with decisions(tmp_path, FakeClock()) as store:
        await loaded(store)
    (tmp_path / f"decisions.db.corrupt-{STAMP}").unlink()
    async with Store(tmp_path, FakeClock(), "boot-1", Facts()) as both:
        assert both.decisions is not None
        await loaded(both.decisions)
        assert both.aside == ()
