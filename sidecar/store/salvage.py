"""What can still be read of a corrupt file goes into the one that takes its place.

A bad page hides the rows on it and those that are reached through it; reading from both ends gets at the others. Rows
carry checksums of their own, so what is garbled inside a row is found by whoever reads it later.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def salvage(corrupt: Path, into: sqlite3.Connection, tables: Sequence[str]) -> int:
    """Copy rows, within a transaction of the new file; how many there were. Raises sqlite3.Error for the new file."""
    saved = 0
    with contextlib.closing(sqlite3.connect(f"file:{corrupt}?mode=ro", uri=True, isolation_level=None)) as old:
        old.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for table in tables:
            columns = len(into.execute(f"PRAGMA table_info({table})").fetchall())
            places = ", ".join("?" * columns)
            for row in _readable(old, table):
                if len(row) == columns:
                    with contextlib.suppress(sqlite3.IntegrityError):  # garbled: a column is of no use
                        saved += into.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", row).rowcount
    return saved


def _readable(old: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    for order in ("ASC", "DESC"):  # what was read from the front is ignored when it comes again from the back
        with contextlib.suppress(sqlite3.Error):
            yield from old.execute(f"SELECT * FROM {table} ORDER BY number {order}")
