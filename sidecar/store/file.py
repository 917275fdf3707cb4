"""One SQLite file as its worker thread sees it: opened, checked, moved aside, written again.

    file in place and open             -> BEGIN, job, COMMIT
    corrupt, or of a later version     -> moved aside under a name that says when and why; a new file is created, with
                                          the rows that can still be read from a corrupt one
    deleted or replaced while open     -> written again from the open connection, which still has the content
    any other error                    -> closed, and opened again by the next job

Errors of SQLite and of the system end here: jobs raise DiskError.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sidecar.clock import Clock
from sidecar.errors import DiskError
from sidecar.facts import Fact, Notice
from sidecar.store.salvage import salvage

T = TypeVar("T")
Connection = sqlite3.Connection
Inode = tuple[int, int]

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_COMPANIONS = ("", "-wal", "-shm")
_ASIDE_KEPT = 5
"""Files moved aside that are kept for each database, so that they cannot fill the disk."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of a file. `version` is written into the file; a file of a later version is not read."""

    name: str
    version: int
    statements: tuple[str, ...]
    salvaged: tuple[str, ...] = ()
    """Tables whose rows exist nowhere else. A file with such tables is checked when it is opened, and their rows are
    copied from a corrupt file to the new one."""
    upgrades: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """For each earlier version, the statements that make the next version of it."""


class File:
    """Belongs to the worker thread. Other threads read only `facts` and `generation`."""

    def __init__(self, folder: Path | None, layout: Layout, clock: Clock) -> None:
        self.generation = 0
        self.facts: deque[Fact] = deque()
        self._folder = folder
        self._path = None if folder is None else folder / layout.name
        self._layout = layout
        self._clock = clock
        self._connection: Connection | None = None
        self._corrupt: Path | None = None
        self._identities: dict[str, Inode | None] = {}

    def write(self, job: Callable[[Connection], T], durable: bool) -> T:
        with self._errors():
            connection = self._usable()
            # FULL syncs the log at each commit. With NORMAL a commit survives kill -9, but not a power cut.
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            result = _transaction(connection, job)
            self._identify("-wal")
            return result

    def read(self, job: Callable[[Connection], T]) -> T:
        with self._errors():
            return job(self._usable())

    def probe(self) -> None:
        """Write and delete as much as a few events. If that succeeds, the disk is usable again."""
        blob = bytes(256 * 1024)
        self.write(lambda connection: connection.execute("INSERT INTO probe VALUES (?)", (blob,)), durable=True)
        self.write(lambda connection: connection.execute("DELETE FROM probe"), durable=True)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            try:
                yield
            except sqlite3.Error as error:
                self._prepare_next_job(error)
                raise DiskError(f"{self._layout.name}: {error}") from None
        except OSError as error:
            self._prepare_next_job(error)
            raise DiskError(f"{self._layout.name}: {error.strerror or error}") from None

    def _prepare_next_job(self, error: sqlite3.Error | OSError) -> None:
        """Move a corrupt file aside; after other errors close the file, so that the next job opens it again."""
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        if _is_corrupt(error):
            self._set_aside("corrupt", str(error))
        elif not full and self._path is not None and self._in_place():
            # Opening reads the log again after a failed sync, and finds that a disk is not read-only any more.
            # A file that was deleted while open stays open: only this connection still has its content.
            self.close()

    def _usable(self) -> Connection:
        if self._connection is not None and not self._in_place():
            self._rescue(self._connection)
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> Connection:
        if self._path is None or self._folder is None:
            return self._laid_out(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        make_private(self._folder)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(handle, 0o600)
        os.close(handle)
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=2.0, cached_statements=64)
        try:
            unusable = self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            if not _is_corrupt(error):
                raise
            unusable = ("corrupt", str(error))
        if unusable is not None:
            connection.close()
            self._set_aside(*unusable)
            return self._open()
        for suffix in ("", "-wal"):
            self._identities[suffix] = None
            self._identify(suffix)
        return connection

    def _prepare(self, connection: Connection) -> tuple[str, str] | None:
        """Make the file ready for jobs. Returns the kind of problem and the reason if it cannot be used, else None."""
        version = _one(connection, "PRAGMA user_version")
        if version > self._layout.version:
            return "newer", f"it is of version {version}, this program knows {self._layout.version}"
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA journal_size_limit=16777216")
        if self._layout.salvaged and _one(connection, "PRAGMA quick_check(1)") != "ok":
            return "corrupt", "the check of its pages failed"
        self._laid_out(connection)
        return None

    def _laid_out(self, connection: Connection) -> Connection:
        if _one(connection, "PRAGMA user_version") == 0:
            statements = ("CREATE TABLE IF NOT EXISTS probe (filler BLOB)", *self._layout.statements)

            def lay_out(connection: Connection) -> None:
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={self._layout.version}")

            _transaction(connection, lay_out)
            self.generation += 1
            self._salvage(connection)
        else:
            self._upgrade(connection)
        return connection

    def _upgrade(self, connection: Connection) -> None:
        for version in range(_one(connection, "PRAGMA user_version"), self._layout.version):

            def upgrade(connection: Connection, version: int = version) -> None:
                for statement in self._layout.upgrades[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version={version + 1}")

            _transaction(connection, upgrade)

    def _salvage(self, connection: Connection) -> None:
        corrupt, self._corrupt = self._corrupt, None
        if corrupt is not None and self._layout.salvaged:
            saved = _transaction(connection, lambda connection: salvage(corrupt, connection, self._layout.salvaged))
            self._say(f"{self._layout.name}: {saved} rows were saved from {corrupt.name}")

    def _identify(self, suffix: str) -> None:
        if self._path is not None and self._identities.get(suffix) is None:
            self._identities[suffix] = _inode(Path(f"{self._path}{suffix}"))

    def _in_place(self) -> bool:
        """Whether the files in the folder are still the open ones. SQLite does not notice it when they are deleted, and
        would go on writing to files that no longer have a name."""
        return self._path is None or all(
            inode is None or _inode(Path(f"{self._path}{suffix}")) == inode
            for suffix, inode in self._identities.items()
        )

    def _rescue(self, held: Connection) -> None:
        """Write the file again from the open connection, which still has the content."""
        assert self._path is not None
        assert self._folder is not None
        make_private(self._folder)
        copy = Path(f"{self._path}.rescue")
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        target = sqlite3.connect(copy, isolation_level=None)
        try:
            held.backup(target)
        finally:
            target.close()
        self.close()
        if self._path.exists() and _inode(self._path) != self._identities.get(""):
            self._set_aside("replaced", "another file was put in its place")
        for suffix in _COMPANIONS:
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        os.replace(copy, self._path)
        self._say(f"{self._layout.name} was deleted or replaced while open; it was written again, nothing is lost")

    def _set_aside(self, kind: str, reason: str) -> None:
        """Rename the file to a name that says when and why; the next job creates a new one."""
        self.close()
        if self._path is None:
            return
        stamp = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y%m%dT%H%M%SZ")
        aside = Path(f"{self._path}.{kind}-{stamp}")
        while aside.exists():
            aside = Path(f"{aside}+")
        for suffix in reversed(_COMPANIONS):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")
        self._corrupt = aside if kind == "corrupt" else None
        self._say(f"{self._layout.name}: {reason}; moved aside as {aside.name}, a new file is begun")
        _delete_oldest(self._path)

    def _say(self, message: str) -> None:
        self.facts.append(Notice(message, level="error"))


def _delete_oldest(path: Path) -> None:
    """Of the files that were moved aside for this one, keep the newest."""
    aside = [each for each in path.parent.glob(f"{path.name}.*-*Z*") if "Z-" not in each.name]
    for old in sorted(aside, key=lambda each: each.stat().st_mtime)[:-_ASIDE_KEPT]:
        for suffix in _COMPANIONS:
            Path(f"{old}{suffix}").unlink(missing_ok=True)


def _transaction(connection: Connection, job: Callable[[Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = job(connection)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return result


def _one(connection: Connection, query: str) -> Any:
    return connection.execute(query).fetchone()[0]


def _is_corrupt(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _CORRUPT


def _inode(path: Path) -> Inode | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def make_private(folder: Path) -> None:
    """Create the folder if it does not exist; make it private if it is ours and open to other users."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        folder.chmod(0o700)
