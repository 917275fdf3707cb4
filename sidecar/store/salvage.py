"""Copies the rows that can still be read from a file that was moved aside to the new one.

A bad page makes a read fail at its first row; the read is then continued behind it. Rows have checksums; a row with
damaged content is noticed when it is read.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

_BATCH = 64
"""Rows in one transaction of the new file."""

_SINGLE_STEPS = 1_000
"""So many numbers behind a bad row are tried one by one; from there on, the steps double."""


def salvage(aside: Path, into: sqlite3.Connection, tables: Mapping[str, str]) -> tuple[int, bool]:
    """Copy the rows of these tables that fit a condition, a few at a time. Returns how many, and whether all could be
    read. Raises sqlite3.Error for the new file."""
    with tempfile.TemporaryDirectory(dir=aside.parent, prefix="salvage-") as folder:
        source = _readable_file(aside, Path(folder))
        with contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, isolation_level=None)) as old:
            old.text_factory = lambda raw: raw.decode("utf-8", "replace")
            old.execute("PRAGMA writable_schema=ON")  # otherwise SQLite reads nothing of a file that was cut off
            reading = _Reading(old)
            return sum(_copy(reading, into, table, fits) for table, fits in tables.items()), reading.whole


def _readable_file(aside: Path, folder: Path) -> Path:
    """The file itself, or a copy of its log with an empty first page: SQLite deletes the log of an empty file."""
    if aside.exists() and aside.stat().st_size > 0:
        return aside
    copy = folder / "copy"
    copy.write_bytes(bytes(4096))
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(f"{aside}-wal", f"{copy}-wal")
    return copy


def _copy(old: _Reading, into: sqlite3.Connection, table: str, fits: str) -> int:
    known = [row[0] for row in into.execute(_COLUMNS, (table,))]
    columns = [name for name in old.columns(table) if name in known]
    if not columns:
        return 0
    listed, places = ", ".join(columns), ", ".join("?" * len(columns))
    insert = f"INSERT OR IGNORE INTO {table} ({listed}) VALUES ({places})"
    rows, copied = old.rows(f"SELECT rowid, {listed} FROM {table} NOT INDEXED WHERE {fits}"), 0
    while batch := list(islice(rows, _BATCH)):
        into.execute("BEGIN IMMEDIATE")
        try:
            for row in batch:
                with contextlib.suppress(sqlite3.IntegrityError):  # a damaged column does not fit its constraint
                    copied += into.execute(insert, row).rowcount
        finally:
            into.execute("COMMIT")
    return copied


_COLUMNS = "SELECT name FROM pragma_table_info(?)"


class _Reading:
    """Reads what can be read; `whole` says whether that was all."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.whole = True
        self._connection = connection

    def columns(self, table: str) -> list[str]:
        """Those of a table; none if there is no such table, or it is not known."""
        columns = []
        with contextlib.suppress(sqlite3.Error):
            columns = [row[0] for row in self._connection.execute(_COLUMNS, (table,))]
        self.whole = self.whole and bool(columns)
        return columns

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """The query has a condition, and the rowid as its first column, which is left out."""
        after, failed = -1, 0
        while after < 2**62:
            try:
                for number, *row in self._connection.execute(f"{query} AND rowid > ? ORDER BY rowid", (after,)):
                    after, failed = number, 0
                    yield tuple(row)
            except sqlite3.Error:
                self.whole = False
                failed += 1
                after += 1 if failed <= _SINGLE_STEPS else 2 ** min(failed - _SINGLE_STEPS, 62)
            else:
                break
        # Where the steps doubled, rows were passed over: those at the end are read from behind.
        with contextlib.suppress(sqlite3.Error):
            for _, *row in self._connection.execute(f"{query} ORDER BY rowid DESC") if failed or after >= 2**62 else ():
                yield tuple(row)
