"""The pages of an SQLite file: how long its log gets, and which free pages the file system gets back."""

from __future__ import annotations

from pathlib import Path
from sqlite3 import Connection

LOG_MOST = 3 * 1024 * 1024
"""Bytes of the log. A log that is longer was not written back to the file, for lack of space or because of a reader."""

_WRITE_BACK = 512
"""Pages in the log after which SQLite writes them back to the file: 2 MiB, and so less than LOG_MOST with one job."""

_KEEP_FREE = 4_096, 100_000
"""Free pages that a file keeps for the next events: 16 MiB, but at most one for so many bytes of the disk (4 %)."""

_AT_ONCE = 256
"""Free pages that are given back in one transaction."""

_ROUNDS = 64
"""Transactions after one job in which free pages are given back: 64 MiB. The next job waits for them."""

_SMALL = 256
"""Pages with content up to which a file is rewritten as one that can shrink."""


def prepare(connection: Connection) -> None:
    """Settings before the first table is created, and for each connection."""
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # has an effect on an empty file only
    connection.execute(f"PRAGMA wal_autocheckpoint={_WRITE_BACK}")


def convert_if_small(connection: Connection) -> None:
    """A file of the first release cannot shrink. While it holds little, it is written once more, as one that can."""
    used = _value(connection, "page_count") - free_pages(connection)
    if _value(connection, "auto_vacuum") == 0 and used <= _SMALL:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("VACUUM")


def log_is_long(path: Path) -> bool:
    """Whether the log of this file was not written back when it should have been."""
    try:
        return Path(f"{path}-wal").stat().st_size > LOG_MOST
    except FileNotFoundError:
        return False


def empty_log(connection: Connection) -> None:
    """Write the log back to the file, and make it empty, unless somebody reads it: that is not waited for. Raises
    sqlite3.Error."""
    waits = _value(connection, "busy_timeout")
    connection.execute("PRAGMA busy_timeout=0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout={waits}")


def free_pages(connection: Connection) -> int:
    """Pages of the file that hold nothing."""
    return _value(connection, "freelist_count")


def _to_keep(volume: int) -> int:
    """Free pages that a file keeps on a disk of that many bytes."""
    most, bytes_for_each = _KEEP_FREE
    return min(most, volume // bytes_for_each)


def give_back(connection: Connection, volume: int) -> None:
    """Cut free pages off a file that has clearly more than it should keep. Raises sqlite3.Error."""
    keep = _to_keep(volume)
    if free_pages(connection) < keep + _AT_ONCE:
        return
    for _ in range(_ROUNDS):
        if not give_back_some(connection, keep):
            break
        empty_log(connection)


def give_back_some(connection: Connection, keep: int) -> bool:
    """Cut free pages off the file, if it has more than it should keep; returns whether it did. The file becomes
    smaller when the log is written back."""
    free = free_pages(connection)
    if free <= keep:
        return False
    # As a script, because `execute` stops after one page: the statement has a row without columns for each.
    connection.executescript(f"PRAGMA incremental_vacuum({min(free - keep, _AT_ONCE)})")
    return free_pages(connection) < free


def _value(connection: Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
