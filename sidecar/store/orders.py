"""The orders on disk: those that wait, and for a day what became of the others.

An order is written, synced, before it is acknowledged. Its end is written behind: if that is lost in a power cut, the
order is sent again, and the module answers with the outcome that it remembers.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sidecar.clock import Clock
from sidecar.core.orders import Mode, Order, Result, State, Stored, Verb
from sidecar.store.database import Database
from sidecar.store.file import Connection
from sidecar.store.journal import TABLES
from sidecar.store.layout import Layout

LAYOUT = Layout(
    name="orders.db",
    version=1,
    reserve=4 * 1024 * 1024,
    salvaged={"orders": "true", **dict.fromkeys(TABLES, "true")},
    checked=True,
    added=TABLES,
    statements=(
        """CREATE TABLE orders (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        idempotency_key TEXT UNIQUE,
        fingerprint TEXT NOT NULL,    -- the same for two orders that say the same
        state TEXT NOT NULL,
        ended_at REAL,                -- Unix seconds
        result TEXT NOT NULL,         -- JSON: what the sender was told
        checksum INTEGER NOT NULL,    -- CRC-32 of the order
        said TEXT NOT NULL            -- JSON
    )""",
    ),
)

KEPT = 86_400.0
"""Seconds for which the end of an order is remembered, for a sender who repeats it."""
KEPT_MOST = 10_000
"""Orders that have ended and are remembered at the most."""

_COLUMNS = "idempotency_key, fingerprint, state, result, checksum, said"
_ADD = """INSERT INTO orders (id, idempotency_key, fingerprint, state, ended_at, result, checksum, said)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_END = "UPDATE orders SET state = ?, ended_at = ?, result = ? WHERE id = ?"
_FORGET_OLD = """DELETE FROM orders WHERE number IN
    (SELECT number FROM orders WHERE state != 'waiting' ORDER BY number LIMIT 64) AND ended_at < ?"""
_FORGET_MANY = """DELETE FROM orders WHERE state != 'waiting' AND number <=
    (SELECT max(number) FROM orders) - ?"""


class Orders:
    """The rows. Everything raises DiskError."""

    def __init__(self, database: Database, clock: Clock) -> None:
        """The database is laid out by `LAYOUT`."""
        self._database = database
        self._clock = clock

    async def add(self, stored: Stored) -> None:
        """Write an order, synced."""
        wall = self._clock.wall()

        def job(connection: Connection) -> None:
            connection.execute(_ADD, _row(stored, None if stored.result.state is State.WAITING else wall))
            connection.execute(_FORGET_OLD, (wall - KEPT,))
            connection.execute(_FORGET_MANY, (KEPT_MOST,))

        await self._database.write(job, durable=True)

    async def end(self, order_id: str, result: Result) -> None:
        """Write what became of an order."""
        values = (result.state, self._clock.wall(), _result_text(result), order_id)
        await self._database.write(lambda connection: connection.execute(_END, values), durable=False, frees=True)

    async def find(self, key: str) -> Stored | None:
        """The order that was sent with this idempotency key."""
        query = f"SELECT {_COLUMNS} FROM orders WHERE idempotency_key = ?"
        rows = await self._database.read(lambda connection: connection.execute(query, (key,)).fetchall())
        return next(iter(_undamaged(rows)), None)

    async def waiting(self) -> list[Stored]:
        """The orders that wait, in the order in which they came."""
        query = f"SELECT {_COLUMNS} FROM orders WHERE state = 'waiting' ORDER BY number"
        return _undamaged(await self._database.read(lambda connection: connection.execute(query).fetchall()))


def _row(stored: Stored, ended_at: float | None) -> tuple[Any, ...]:
    order, result = stored.order, stored.result
    said = json.dumps(asdict(order))
    checksum = zlib.crc32(said.encode())
    return order.id, stored.key, stored.fingerprint, result.state, ended_at, _result_text(result), checksum, said


def _result_text(result: Result) -> str:
    return json.dumps({"fields": result.fields, "error": result.error})


def _undamaged(rows: Sequence[Any]) -> list[Stored]:
    """The rows as values. One that is damaged is left out: an order must not be carried out other than it was sent."""
    found = []
    for key, fingerprint, state, result, checksum, said in rows:
        try:
            if zlib.crc32(said.encode()) != checksum:
                continue
            fields = json.loads(said)
            order = Order(**{**fields, "verb": Verb(fields["verb"]), "mode": Mode(fields["mode"])})
            ended = json.loads(result)
            found.append(Stored(order, key, fingerprint, Result(State(state), ended["fields"], ended["error"])))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return found
