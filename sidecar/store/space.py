"""What is done for one file on a full disk.

full -> the reserve is given up for jobs that free space, and taken again as soon as there is space
     -> all other jobs are refused, until the reserve is there with space beside it
"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path
from sqlite3 import Connection

from sidecar.errors import DiskError
from sidecar.store import reserve
from sidecar.store.pages import (
    LOG_MOST,
    convert_if_small,
    empty_log,
    free_pages,
    give_back,
    give_back_some,
    log_is_long,
)
from sidecar.store.reserve import Reserve


class Space:
    """Belongs to the worker thread; other threads only read the public attributes."""

    def __init__(self, path: Path, size: int) -> None:
        """`size`: bytes of the reserve. Nothing is taken yet."""
        self.shortage: str | None = None
        """Why only jobs that free space are done; None: all are."""
        self.volume: int | None = None
        """Bytes of the file system, once it is known."""
        self._path = path
        self._size = size
        self._reserve = Reserve(Path(f"{path}.reserve"), size)

    def before_open(self) -> None:
        """Also to open a file takes space. Raises OSError."""
        if self.shortage is not None:
            self._reserve.give_up()

    def opened(self, connection: Connection) -> None:
        """The file is open: take the reserve. Raises OSError and sqlite3.Error."""
        self.volume = reserve.volume(self._path.parent)
        convert_if_small(connection)
        if not self._reserve.take():
            self.shortage = f"the disk has less than {self._size >> 20} MiB of free space"

    def before_job(self, connection: Connection, *, frees: bool) -> None:
        """Raises DiskError if the job is not one for a full disk."""
        if self.shortage is None:
            return
        if not frees:
            raise DiskError(f"{self._path.name}: {self.shortage}")
        self._reserve.give_up()
        empty_log(connection)

    def after_job(self, connection: Connection, *, frees: bool) -> None:
        """Keep the log short, give free pages back, and take the reserve again. Raises sqlite3.Error, but not for a
        full disk: the job is done all the same."""
        try:
            if frees and self.shortage is None:
                give_back(connection, self.volume or 0)
            if self.shortage is not None or log_is_long(self._path):
                empty_log(connection)
        except sqlite3.Error as error:
            if not self.note(error):
                raise
        if self.shortage is not None and frees:
            self._reserve.take()

    def note(self, error: Exception) -> bool:
        """Whether this error comes from a full disk; then there is a shortage from now on."""
        if self._is_full(error):
            self.shortage = "the disk is full"
            return True
        return False

    def end_shortage(self, connection: Connection) -> None:
        """Take the reserve, and have space beside it. Raises DiskError if that is not possible, and sqlite3.Error."""
        if free_pages(connection):
            self._reserve.give_up()
            empty_log(connection)
            convert_if_small(connection)
            give_back(connection, self.volume or 0)
        while not self._reserve.take(beside=LOG_MOST):
            if not give_back_some(connection, keep=0):
                self._reserve.take()
                raise DiskError(f"{self._path.name}: {self.shortage or 'the disk is full'}")
            empty_log(connection)
        self.shortage = None

    def _is_full(self, error: Exception) -> bool:
        if isinstance(error, OSError):
            return error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        unclear = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        return code == sqlite3.SQLITE_FULL or (unclear and reserve.is_full(self._path.parent))
