"""One SQLite file as its worker thread sees it: opened, checked, moved aside, written again.

    file in place and open             -> BEGIN, job, COMMIT
    corrupt, foreign, of a later       -> moved aside under a name that says when and why; a new file is created, with
    version                               the rows that can still be read from the old one
    deleted or replaced while open     -> written again from the open connection, which still has the content
    overwritten while open             -> the same, with what the connection has in its cache; what has not is lost
    disk full                          -> only jobs that free space are done; a layout may have a reserve for them
    any other error                    -> closed, and opened again by the next job

Errors of SQLite and of the system end here: jobs raise DiskError.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sidecar.clock import Clock
from sidecar.errors import DiskError
from sidecar.facts import Fact, Notice
from sidecar.store import aside
from sidecar.store.layout import Layout, one, transaction
from sidecar.store.pages import prepare
from sidecar.store.reserve import can_share_memory
from sidecar.store.salvage import salvage
from sidecar.store.space import Space

T = TypeVar("T")
Connection = sqlite3.Connection
Inode = tuple[int, int]
Stamp = tuple[int, int] | None
"""Size in bytes, and when it was written last."""

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CANNOT_BE_READ = _CORRUPT | {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH}
"""Errors while a file is opened that come from its content. Others, such as a busy or a full disk, pass."""


class File:
    """Belongs to the worker thread. Other threads only read the public attributes."""

    def __init__(self, folder: Path | None, layout: Layout, clock: Clock) -> None:
        self.generation = 0
        self.facts: deque[Fact] = deque()
        self.aside: list[str] = []
        """The files in the folder that were moved aside, by this process or an earlier one."""
        self._folder = folder
        self._path = None if folder is None else folder / layout.name
        self._layout = layout
        self._clock = clock
        self._connection: Connection | None = None
        self.space = None if self._path is None or not layout.reserve else Space(self._path, layout.reserve)
        self._to_salvage: Path | None = None
        self._identities: dict[str, Inode | None] = {}
        self._written: list[Stamp] | None = []
        """How the last job left the file and its log; None: somebody else has damaged them since."""

    def write(self, job: Callable[[Connection], T], durable: bool, frees: bool = False) -> T:
        """`frees`: the job deletes more than it writes, or is short: it is done on a full disk too."""
        known = self.space is None or self.space.shortage is not None
        try:
            return self._write(job, durable, frees)
        except DiskError:
            if known or not frees or self.space is None or self.space.shortage is None:
                raise
            return self._write(job, durable, frees)  # the disk has just become full: now the reserve is given up

    def _write(self, job: Callable[[Connection], T], durable: bool, frees: bool) -> T:
        with self._errors():
            connection = self._usable()
            if self.space is not None:
                self.space.before_job(connection, frees=frees)
            # FULL syncs the log at each commit. With NORMAL a commit survives kill -9, but not a power cut.
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            result = transaction(connection, job)
            self._identify("-wal")
            if self.space is not None:
                self.space.after_job(connection, frees=frees)
            return result

    def read(self, job: Callable[[Connection], T]) -> T:
        with self._errors():
            return job(self._usable())

    def probe(self) -> None:
        """Write and delete as much as a few events. If that succeeds, the disk is usable again."""
        if self.space is not None:
            with self._errors():
                self.space.end_shortage(self._usable())
        blob = bytes(256 * 1024)
        self.write(lambda connection: connection.execute("INSERT INTO probe VALUES (?)", (blob,)), durable=True)
        self.write(lambda connection: connection.execute("DELETE FROM probe"), durable=True)

    def finish(self) -> None:
        """Close the file, after a last look whether it is still as it was left."""
        try:
            if self._connection is not None:
                with self._errors():
                    self._usable()
        finally:
            self.close()

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
            except (sqlite3.Error, UnicodeDecodeError) as error:
                self._prepare_next_job(error)
                raise DiskError(f"{self._layout.name}: {error}") from None
        except OSError as error:
            self._prepare_next_job(error)
            raise DiskError(f"{self._layout.name}: {error.strerror or error}") from None
        finally:
            if self._written is not None:
                self._written = self._stamps()

    def _prepare_next_job(self, error: Exception) -> None:
        """Move a corrupt file aside; after other errors close the file, so that the next job opens it again."""
        full = self.space is not None and self.space.note(error)
        if _is_corrupt(error):
            self._set_aside("corrupt", str(error))
        elif not full and self._path is not None and self._in_place():
            # Opening reads the log again after a failed sync, and finds that a disk is not read-only any more.
            # A file that was deleted while open stays open: only this connection still has its content.
            self.close()

    def _usable(self) -> Connection:
        if self._connection is not None:
            if not self._in_place():
                self._rescue(self._connection)
            elif not self._is_as_left():
                self._written = None
                self._rescue(self._connection, overwritten=True)
        if self._connection is None:
            if self.space is not None:
                self.space.before_open()
            self._connection = self._open()
        return self._connection

    def _open(self) -> Connection:
        if self._path is None or self._folder is None:
            return self._laid_out(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
        make_private(self._folder)
        for strange in aside.set_aside_strange_companions(self._path, self._clock.wall()):
            self._say(f"{self._layout.name}: something has the name of its log; moved aside as {strange.name}")
        wrong = aside.what_is_wrong_with(self._path) or _make_private_file(self._path)
        if wrong is not None:
            self._set_aside(*wrong)
            return self._open()
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=2.0, cached_statements=64)
        if not can_share_memory(self._folder):
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # the index of the log is then in the process's memory
        try:
            unusable = self._prepare(connection)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            connection.close()
            if _code(error) not in _CANNOT_BE_READ:
                raise
            unusable = ("corrupt", str(error))
        if unusable is not None:
            connection.close()
            self._set_aside(*unusable)
            return self._open()
        self._written = []
        for suffix in ("", "-wal"):
            self._identities[suffix] = None
            self._identify(suffix)
        self.aside = aside.names(self._path)
        if self.space is not None:
            self.space.opened(connection)
        return connection

    def _prepare(self, connection: Connection) -> tuple[str, str] | None:
        """Make the file ready for jobs. Returns the kind of problem and the reason if it cannot be used, else None."""
        if wrong := self._layout.what_is_wrong_with(connection):
            return wrong
        prepare(connection)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA journal_size_limit=16777216")
        if self._layout.checked and not _is_sound(connection):
            return "corrupt", _FAILED
        self._laid_out(connection)
        return None

    def _laid_out(self, connection: Connection) -> Connection:
        if self._layout.lay_out(connection):
            self.generation += 1
            self._salvage(connection)
        self._layout.begin_session(connection)
        return connection

    def _salvage(self, connection: Connection) -> None:
        old, self._to_salvage = self._to_salvage, None
        if old is None or not self._layout.salvaged:
            return
        try:
            saved, whole = salvage(old, connection, self._layout.salvaged)
        except (sqlite3.Error, OSError) as error:
            self._say(f"{self._layout.name}: not all rows could be saved from {old.name}, which keeps them: {error}")
            whole = False
        else:
            rest = "" if whole else "; not all of it can be read"
            self._say(f"{self._layout.name}: {saved} rows were saved from {old.name}{rest}")
        if not whole and self._layout.note_loss:
            connection.execute(self._layout.note_loss, (old.name,))

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

    def _is_as_left(self) -> bool:
        """Whether nobody has written to the open file, or only as SQLite does. The open connection reads from its cache
        and would not notice anything else."""
        if self._stamps() == self._written:
            return True
        if self._written is None or self._path is None:
            return False
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=0.0)) as fresh:
                return _is_sound(fresh)
        except sqlite3.Error:
            return False

    def _stamps(self) -> list[Stamp]:
        return [] if self._path is None else [_stamp(Path(f"{self._path}{suffix}")) for suffix in ("", "-wal")]

    def _rescue(self, held: Connection, *, overwritten: bool = False) -> None:
        """Write the file again from the open connection, which still has the content, or what it has in its cache."""
        assert self._path is not None
        copy, whole = self._copied(held, self._path)
        self.close()
        if overwritten:
            self._set_aside("overwritten", "another program has written to it")
        elif self._path.exists() and _inode(self._path) != self._identities.get(""):
            self._set_aside("replaced", "another file was put in its place")
        for suffix in aside.COMPANIONS:
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        os.replace(copy, self._path)
        saved = "nothing is lost" if whole else "but not all of it was in memory"
        self._say(f"{self._layout.name} was deleted, replaced or overwritten while open; it was written again, {saved}")
        if not whole:
            self._set_aside("corrupt", _FAILED)

    def _copied(self, held: Connection, path: Path) -> tuple[Path, bool]:
        """A copy of what the connection can read, and whether that is all."""
        make_private(path.parent)
        copy = Path(f"{path}.rescue")
        copy.unlink(missing_ok=True)
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
            held.backup(target)
            return copy, _is_sound(target)

    def _set_aside(self, kind: str, reason: str) -> None:
        """Rename the file to a name that says when and why; the next job creates a new one."""
        self.close()
        if self._path is None:
            return
        moved = aside.set_aside(self._path, kind, self._clock.wall())
        self._to_salvage = None if kind in ("replaced", "overwritten", aside.DELETED) else moved
        self._say(f"{self._layout.name}: {reason}; moved aside as {moved.name}, a new file is begun")

    def _say(self, message: str) -> None:
        self.facts.append(Notice(message, level="error"))


def _make_private_file(path: Path) -> aside.Reason | None:
    """Create the file if it does not exist, for this user only. Returns a reason if it is not readable for this user
    and cannot be made so."""
    with contextlib.suppress(OSError):
        path.chmod(0o600)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        if not path.exists():
            raise
        return "unreadable", str(error.strerror)
    os.fchmod(handle, 0o600)
    os.close(handle)
    return None


def _is_sound(connection: Connection) -> bool:
    return bool(one(connection, "PRAGMA quick_check(1)") == "ok")


_FAILED = "the check of its pages failed"


def _is_corrupt(error: Exception) -> bool:
    not_text = isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error)
    return not_text or _code(error) in _CORRUPT


def _code(error: Exception) -> int:
    """The primary code of SQLite. Errors of Python's own, such as text that is not UTF-8, have none."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _inode(path: Path) -> Inode | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _stamp(path: Path) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def make_private(folder: Path) -> None:
    """Create the folder if it does not exist; make it private if it is ours and open to other users."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        folder.chmod(0o700)
