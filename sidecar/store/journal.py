"""What this sidecar has to say to other shards: changes of remembered answers, for a day. They are in orders.db.

A change is written, synced, before it is acknowledged. When the engine has it, the epoch of the engine is written
behind: to another epoch it is said again. If that is lost, the change is only said once more.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sidecar.clock import Clock
from sidecar.core.model import Endpoint
from sidecar.core.selection import Change, Made, Selector
from sidecar.store.database import Database
from sidecar.store.file import Connection

KEPT = 86_400.0
"""Seconds for which a change is kept."""
KEPT_MOST = 10_000
"""Changes that are kept at the most."""

TABLES = {
    "changes": """CREATE TABLE changes (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        made_at REAL NOT NULL,        -- Unix seconds
        epoch TEXT NOT NULL,          -- of the engine that has it; empty: none has it yet
        checksum INTEGER NOT NULL,    -- CRC-32 of what is said
        said TEXT NOT NULL            -- JSON
    )""",
    "shard": "CREATE TABLE shard (name TEXT NOT NULL)",
    "shards": "CREATE TABLE shards (name TEXT NOT NULL)",
    "heard_until": """CREATE TABLE heard_until (
        epoch TEXT NOT NULL,
        position INTEGER NOT NULL,
        checksum INTEGER NOT NULL     -- CRC-32 of both: with a later position, messages would be missed
    )""",
}

_ADD = "INSERT INTO changes (made_at, epoch, checksum, said) VALUES (?, ?, ?, ?)"
_READ = "SELECT number, made_at, epoch, checksum, said FROM changes"
_SAID = "UPDATE changes SET epoch = ? WHERE number = ?"
_FORGET = "DELETE FROM changes WHERE (made_at < ? AND epoch <> '') OR number <= (SELECT max(number) FROM changes) - ?"


class Journal:
    """The rows. Everything raises DiskError."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """The database has these `TABLES`."""
        self._database = database
        self._clock = clock

    async def name(self, new: str) -> str:
        """The name of this shard. It is `new` if there was none yet, and stays the same after a restart."""

        def job(connection: Connection) -> str:
            row = connection.execute("SELECT name FROM shard").fetchone()
            if row is None:
                connection.execute("INSERT INTO shard VALUES (?)", (new,))
            return new if row is None else str(row[0])

        return await self._database.write(job, durable=True)

    async def rename(self, new: str) -> None:
        """Write another name of this shard, synced."""
        await self._database.write(
            lambda connection: connection.execute("UPDATE shard SET name = ?", (new,)), durable=True
        )

    async def shards(self) -> list[str]:
        """The names of all shards that were kept by `keep_shards`."""
        rows = await self._database.read(lambda connection: connection.execute("SELECT name FROM shards").fetchall())
        return [str(name) for (name,) in rows]

    async def keep_shards(self, names: Collection[str]) -> None:
        """Write the names of all shards that may have rooms."""

        def job(connection: Connection) -> None:
            connection.execute("DELETE FROM shards")
            connection.executemany("INSERT INTO shards VALUES (?)", [(name,) for name in names])

        await self._database.write(job, durable=False)

    async def heard(self) -> tuple[str, int]:
        """What was kept by `hear`; an empty epoch: nothing, or it is damaged."""
        query = "SELECT epoch, position, checksum FROM heard_until"
        row = await self._database.read(lambda connection: connection.execute(query).fetchone())
        return ("", 0) if row is None or _checksum_of(*row[:2]) != row[2] else (row[0], row[1])

    async def hear(self, epoch: str, position: int) -> None:
        """Keep how far the stream of the others has been read, and what was heard until there is on disk."""

        def job(connection: Connection) -> None:
            connection.execute("DELETE FROM heard_until")
            values = epoch, position, _checksum_of(epoch, position)
            connection.execute("INSERT INTO heard_until VALUES (?, ?, ?)", values)

        await self._database.write(job, durable=False, frees=True)

    async def add(self, made: Made) -> int:
        """Write a change, synced; returns its number."""
        said = json.dumps({**asdict(made.selector), "change": made.change.name})

        def job(connection: Connection) -> int:
            values = (made.made_at, made.epoch, zlib.crc32(said.encode()), said)
            number = connection.execute(_ADD, values).lastrowid
            connection.execute(_FORGET, (self._clock.wall() - KEPT, KEPT_MOST))
            return number or 0

        return await self._database.write(job, durable=True)

    async def said(self, number: int, epoch: str) -> None:
        """Write that the engine of this epoch has a change."""
        job = lambda connection: connection.execute(_SAID, (epoch, number))  # noqa: E731
        await self._database.write(job, durable=False, frees=True)

    async def read(self) -> list[tuple[int, Made]]:
        """The changes of the last day, and whatever was never said, with their numbers, in the order in which they were
        made. The clock may have been set since."""
        query = f"{_READ} WHERE made_at >= ? OR epoch = '' ORDER BY number"
        since = self._clock.wall() - KEPT
        rows = await self._database.read(lambda connection: connection.execute(query, (since,)).fetchall())
        return list(_undamaged(rows))


def _checksum_of(epoch: Any, position: Any) -> int:
    return zlib.crc32(json.dumps([epoch, position], default=str).encode())


def _undamaged(rows: Sequence[Any]) -> Iterator[tuple[int, Made]]:
    """The rows as values. One that is damaged is left out: it must not take away other answers than it did."""
    for number, made_at, epoch, checksum, said in rows:
        try:
            if zlib.crc32(said.encode()) == checksum:
                fields = json.loads(said)
                change = Change[fields.pop("change")]
                endpoint = fields.pop("endpoint")
                selector = Selector(**fields, endpoint=endpoint and Endpoint(endpoint))
                yield int(number), Made(selector, change, float(made_at), str(epoch))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
