"""The tables of a file: created in an empty file, and completed in an older one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of a file. `version` is written into the file; a file of a later version is not read."""

    name: str
    version: int
    statements: tuple[str, ...]
    reserve: int = 0
    """Bytes that are kept free for jobs that free space; 0: none. It must be more than what the log holds at the most
    (LOG_MOST and one job), since all of it may have to be appended to the file."""
    salvaged: Mapping[str, str] = field(default_factory=dict)
    """Tables with rows that exist nowhere else, and which rows (a condition). They are copied to the new file from one
    that was moved aside."""
    note_loss: str = ""
    """The statement that notes in the new file that not all could be copied; it gets the name of the old file."""
    checked: bool = False
    """Whether the pages of the file are checked when it is opened."""
    upgrades: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """For each earlier version, the statements that make the next version of it."""
    added: Mapping[str, str] = field(default_factory=dict)
    """Tables and columns (`table.column`) that older files of this version lack, and the statement that adds each. An
    older program reads and writes a file that has them."""
    session: tuple[str, ...] = ()
    """Statements for each connection, such as temporary tables and triggers."""

    def what_is_wrong_with(self, connection: Connection) -> tuple[str, str] | None:
        """The kind of problem and the reason if these tables are not in the file, nor is it empty."""
        version = one(connection, "PRAGMA user_version")
        if version > self.version:
            return "newer", f"it is of version {version}, this program knows {self.version}"
        missing = sorted(self._names(version) - _names(connection)) if version else []
        if missing or (version == 0 and one(connection, "SELECT count(*) FROM sqlite_master")):
            return "foreign", f"it is of another program{f', it has no {missing[0]}' if missing else ''}"
        return None

    def lay_out(self, connection: Connection) -> bool:
        """Create the tables in an empty file, or make those of an earlier version current. Returns whether the file was
        empty."""
        version = one(connection, "PRAGMA user_version")
        if version == 0:
            create = ("CREATE TABLE IF NOT EXISTS probe (filler BLOB)", *self.statements)
            self._to_version(connection, self.version, create)
        for older in range(version or self.version, self.version):
            self._to_version(connection, older + 1, self.upgrades[older])
        for name in self.added.keys() - _names(connection):
            connection.execute(self.added[name])
        return bool(version == 0)

    def begin_session(self, connection: Connection) -> None:
        """What every connection needs."""
        for statement in self.session:
            connection.execute(statement)

    def _to_version(self, connection: Connection, version: int, statements: tuple[str, ...]) -> None:
        def change(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={version}")

        transaction(connection, change)

    def _names(self, version: int) -> set[str]:
        """The tables that every file of this layout has, and those of this very version also the columns."""
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            for statement in self.statements:
                connection.execute(statement)
            return {name for name in _names(connection) if version == self.version or "." not in name}


def transaction(connection: Connection, job: Callable[[Connection], T]) -> T:
    """Run a job: all of it is done, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = job(connection)
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    return result


def one(connection: Connection, query: str) -> Any:
    """The first value of the first row."""
    return connection.execute(query).fetchone()[0]


def _names(connection: Connection) -> set[str]:
    """The tables, and the columns as `table.column`."""
    tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = "SELECT ?1 || '.' || name FROM pragma_table_info(?1)"
    return {*tables, *(row[0] for table in tables for row in connection.execute(columns, (table,)))}
