"""Copies the rows that can still be read from a corrupt file to the new one.

A bad page hides its own rows and all rows after it in the order of reading. Each table is read from both ends, so that
the rows behind the bad page are found too. Rows have checksums; a row with damaged content is noticed when it is read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def salvage(corrupt: Path, into: sqlite3.Connection, tables: Sequence[str]) -> int:
    """Copy rows, within a transaction of the new file; returns how many. Raises sqlite3.Error for the new file."""
    with contextlib.closing(sqlite3.connect(f"file:{corrupt}?mode=ro", uri=True, isolation_level=None)) as old:
        old.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return sum(_copy(old, into, table) for table in tables)


def _copy(old: sqlite3.Connection, into: sqlite3.Connection, table: str) -> int:
    columns = len(into.execute(f"PRAGMA table_info({table})").fetchall())
    insert = f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * columns)})"
    copied = 0
    for row in _readable(old, table):
        if len(row) == columns:
            with contextlib.suppress(sqlite3.IntegrityError):  # a damaged column does not fit its constraint
                copied += into.execute(insert, row).rowcount
    return copied


def _readable(old: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    for order in ("ASC", "DESC"):  # a row that is read twice is ignored the second time
        with contextlib.suppress(sqlite3.Error):
            yield from old.execute(f"SELECT * FROM {table} ORDER BY number {order}")
