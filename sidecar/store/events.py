"""The outbox on disk: events that wait, events that are parked, and events that were delivered lately.

The rooms that are open have tables in the same file (open_rooms.py).

The numbers of the rows are the order of acceptance and are never used twice. An event is identified by the digest of
its idempotency key, room and endpoint. One that waits, is parked, or was delivered lately is not accepted again.

Ages are measured with the clock of the outbox (uptime.py); the dates of the wall clock are only shown.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any

from sidecar.clock import Clock
from sidecar.core.events import Limits, Listed, Mark, Marked, Numbers, Pending, Stock
from sidecar.core.model import Endpoint, Event
from sidecar.store import open_rooms
from sidecar.store.database import Database
from sidecar.store.file import Connection
from sidecar.store.layout import Layout
from sidecar.store.uptime import Uptime, resume

_EVENT = """(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name BLOB NOT NULL UNIQUE,      -- BLAKE2b-128 of idempotency key, room and endpoint
    endpoint TEXT NOT NULL,
    room TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    accepted_at REAL NOT NULL,      -- Unix seconds
    traceparent TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    {more}
    body BLOB NOT NULL
)"""

RESERVE = 6 * 1024 * 1024
"""Bytes that are kept on the disk, so that deliveries can be marked when it is full."""

LAYOUT = Layout(
    name="outbox.db",
    version=1,
    reserve=RESERVE,
    salvaged=dict.fromkeys(("events", "parked", "delivered", "uptime"), "true"),
    checked=True,
    statements=(
        f"CREATE TABLE events {_EVENT.format(more='')}",
        "CREATE INDEX rooms ON events (room, number)",
        "CREATE TABLE parked "
        + _EVENT.format(more="parked_at REAL NOT NULL, reason TEXT NOT NULL, status INTEGER, answer BLOB NOT NULL,"),
        "CREATE TABLE delivered (number INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, at REAL NOT NULL)",
    ),
    added={
        "uptime": "CREATE TABLE uptime (id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT, boottime REAL, time REAL)",
        "events.since": "ALTER TABLE events ADD COLUMN since REAL NOT NULL DEFAULT 0",
        "delivered.since": "ALTER TABLE delivered ADD COLUMN since REAL NOT NULL DEFAULT 0",
        **open_rooms.TABLES,
    },
    # What the parked events amount to: counted once for each connection, and then kept by triggers, in the same
    # transaction as the rows. To count it for each event that is parked took 50 ms with 10,000 parked.
    session=(
        "PRAGMA temp_store=MEMORY",
        "PRAGMA recursive_triggers=ON",  # a row that is replaced counts as deleted
        "CREATE TEMP TABLE parked_sum AS SELECT count(*) AS events, total(length(body) + length(answer)) AS bytes"
        " FROM parked",
        """CREATE TEMP TRIGGER parked_more AFTER INSERT ON main.parked BEGIN
            UPDATE parked_sum SET events = events + 1, bytes = bytes + length(new.body) + length(new.answer); END""",
        """CREATE TEMP TRIGGER parked_less AFTER DELETE ON main.parked BEGIN
            UPDATE parked_sum SET events = events - 1, bytes = bytes - length(old.body) - length(old.answer); END""",
    ),
)

DELIVERED_KEPT = 86_400.0
"""Seconds for which a delivered event is remembered."""
DELIVERED_MOST = 100_000
"""Delivered events that are remembered at the most."""

PARKED_PART = 4
"""Parked events use at most a quarter of the disk, so that there is space for those that can be delivered."""

_COLUMNS = "name, endpoint, room, idempotency_key, accepted_at, traceparent, checksum, body"
_ADD = f"INSERT OR IGNORE INTO events ({_COLUMNS}, since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_KNOWN = "SELECT 1 FROM delivered WHERE name = ?1 UNION ALL SELECT 1 FROM parked WHERE name = ?1"
_PAGE = f"SELECT number, since, {_COLUMNS} FROM events WHERE room = ? AND number > ? ORDER BY number LIMIT ?"
_DELIVERED = """INSERT OR REPLACE INTO delivered (name, at, since)
    SELECT name, ?, ? FROM events WHERE number = ? AND name = ?"""
_PARK = f"""INSERT OR REPLACE INTO parked ({_COLUMNS}, parked_at, reason, status, answer)
    SELECT {_COLUMNS}, ?, ?, ?, ? FROM events WHERE number = ? AND name = ?"""
_FORGET_MANY = "DELETE FROM delivered WHERE number <= (SELECT max(number) FROM delivered) - ?"
_FORGET_OLD = """DELETE FROM delivered
    WHERE since < ? AND number IN (SELECT number FROM delivered ORDER BY number LIMIT 64)"""
_TOO_MANY_PARKED = "SELECT events > ? OR bytes > ? FROM parked_sum"
_DROP_OLDEST_PARKED = "DELETE FROM parked WHERE number = (SELECT min(number) FROM parked)"
_UNPARK = f"INSERT OR IGNORE INTO events ({_COLUMNS}, since) SELECT {_COLUMNS}, ? FROM parked WHERE number = ?"
_LIST_PENDING = """SELECT number, endpoint, room, idempotency_key, accepted_at, length(body), NULL, NULL, NULL, NULL
    FROM events WHERE number > ? ORDER BY number LIMIT ?"""
_LIST_PARKED = """SELECT number, endpoint, room, idempotency_key, accepted_at, length(body), parked_at, reason, status,
    answer FROM parked WHERE number > ? ORDER BY number LIMIT ?"""


class Events:
    """The rows of the outbox. Everything raises DiskError."""

    def __init__(self, database: Database, clock: Clock, boot: str) -> None:
        """The database is laid out by `LAYOUT`. `boot` names this boot of the machine."""
        self._database = database
        self._clock = clock
        self._boot = boot
        self._uptime: Uptime | None = None

    async def add(self, events: Sequence[Event]) -> list[bool]:
        """Write events in one synced transaction; returns for each whether it was new."""
        return await self._database.write(
            lambda connection: _add(connection, events, self._now(connection, write=True)), durable=True
        )

    async def page(self, room: str, after: int, most: int) -> list[Pending]:
        """The first events of a room that were accepted after that number."""
        return await self._database.read(
            lambda connection: _page(connection, self._now(connection), _escaped(room), after, most)
        )

    async def mark(self, marks: Sequence[Mark], limits: Limits) -> Marked:
        """Write what became of events. Not synced: a mark that is lost in a power cut only repeats a delivery."""
        wall = self._clock.wall()
        if (volume := self._database.volume) is not None:
            limits = replace(limits, max_bytes=min(limits.max_bytes, volume // PARKED_PART))

        def job(connection: Connection) -> Marked:
            now = self._now(connection, write=True)
            return Marked(thrown_away=_mark(connection, marks, limits, now, wall), oldest_at=_oldest(connection, now))

        return await self._database.write(job, durable=False, frees=True)

    async def rooms(self, after: str, most: int) -> list[str]:
        """Rooms that have events waiting, by name, a page at a time."""
        return await self._database.read(partial(_rooms, after=after, most=most))

    async def stock(self) -> Stock:
        """Count everything."""
        return await self._database.read(lambda connection: _stock(connection, self._now(connection)))

    async def listing(self, *, parked: bool, after: int, most: int) -> list[Listed]:
        """Events that wait, or are parked, as an operator sees them."""
        return await self._database.read(partial(_listing, parked=parked, after=after, most=most))

    async def retry(self, numbers: Numbers) -> list[str]:
        """Let parked events wait again, after the other events of their rooms; returns the room of each event."""
        return await self._database.write(
            lambda connection: _retry(connection, numbers, self._now(connection, write=True)), durable=True
        )

    async def drop(self, numbers: Numbers, *, parked: bool) -> int:
        """Delete events that wait, or are parked; returns how many."""
        return await self._database.write(partial(_drop, numbers=numbers, parked=parked), durable=True, frees=True)

    @property
    def full(self) -> bool:
        """Whether the disk is full: only a few short marks at a time can be written."""
        return self._database.full

    @property
    def generation(self) -> int:
        """Grows with each new file."""
        return self._database.generation

    def _now(self, connection: Connection, *, write: bool = False) -> Uptime:
        last = self._uptime
        if last is None:
            row = connection.execute("SELECT boot, boottime, time FROM uptime").fetchone()
            last = Uptime(*row) if row else None
        now = self._uptime = resume(last, self._boot, self._clock.monotonic())
        if write:
            row = (now.boot, now.boottime, now.time)
            connection.execute("INSERT OR REPLACE INTO uptime VALUES (1, ?, ?, ?)", row)
        return now


def _add(connection: Connection, events: Sequence[Event], now: Uptime) -> list[bool]:
    new = []
    for event in events:
        row = _row(event)
        known = connection.execute(_KNOWN, row[:1]).fetchone() is not None
        new.append(not known and connection.execute(_ADD, (*row, now.time)).rowcount == 1)
    open_rooms.note(connection, [event for event, is_new in zip(events, new, strict=True) if is_new])
    return new


def _row(event: Event) -> tuple[Any, ...]:
    texts = (str(event.endpoint), _escaped(event.room), _escaped(event.idempotency_key))
    name = blake2b(repr(texts).encode(), digest_size=16).digest()
    checksum = zlib.crc32(event.body, zlib.crc32(name))
    return name, *texts, event.accepted_at, _escaped(event.traceparent), checksum, event.body


def _escaped(text: str) -> str:
    """The text with lone surrogates escaped: JSON allows them, UTF-8 does not. The body, which is sent, keeps them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _page(connection: Connection, now: Uptime, room: str, after: int, most: int) -> list[Pending]:
    pending = []
    for row in connection.execute(_PAGE, (room, after, most)).fetchall():
        number, since, name, endpoint, room_, key, accepted_at, traceparent, checksum, body = row
        event = Event(_endpoint(endpoint), room_, body, key, accepted_at, traceparent)
        damaged = endpoint not in _ENDPOINTS or checksum != zlib.crc32(body, zlib.crc32(name))
        pending.append(Pending(number, name, event, now.boottime_of(since), damaged))
    return pending


_ENDPOINTS = {str(endpoint): endpoint for endpoint in Endpoint}


def _endpoint(name: str) -> Endpoint:
    return _ENDPOINTS.get(name, Endpoint.ROOM_DESTROYED)


def _mark(connection: Connection, marks: Sequence[Mark], limits: Limits, now: Uptime, wall: float) -> int:
    """Write the marks; returns how many parked events were deleted for them."""
    delivered, parked = [], []
    for mark in marks:
        if mark.reason is None:
            delivered.append((wall, now.time, mark.number, mark.name))
        else:
            parked.append((wall, mark.reason, mark.status, mark.answer, mark.number, mark.name))
    connection.executemany(_DELIVERED, delivered)
    connection.executemany(_PARK, parked)
    connection.executemany(
        "DELETE FROM events WHERE number = ? AND name = ?", [(mark.number, mark.name) for mark in marks]
    )
    connection.execute(_FORGET_MANY, (DELIVERED_MOST,))
    connection.execute(_FORGET_OLD, (now.time - DELIVERED_KEPT,))
    return _make_room(connection, limits) if parked else 0


def _make_room(connection: Connection, limits: Limits) -> int:
    """Delete the oldest parked events while there are too many; returns how many."""
    deleted = 0
    while connection.execute(_TOO_MANY_PARKED, (limits.max_parked, limits.max_bytes)).fetchone()[0]:
        if connection.execute(_DROP_OLDEST_PARKED).rowcount == 0:  # another program has deleted rows
            break
        deleted += 1
    return deleted


def _rooms(connection: Connection, *, after: str, most: int) -> list[str]:
    query = "SELECT DISTINCT room FROM events WHERE room > ? ORDER BY room LIMIT ?"
    return [row[0] for row in connection.execute(query, (after, most)).fetchall()]


def _stock(connection: Connection, now: Uptime) -> Stock:
    pending, size = connection.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM events").fetchone()
    return Stock(pending, size, _count(connection, "parked"), _oldest(connection, now))


def _oldest(connection: Connection, now: Uptime) -> float | None:
    row = connection.execute("SELECT since FROM events ORDER BY number LIMIT 1").fetchone()
    return now.boottime_of(row[0]) if row else None


def _count(connection: Connection, table: str) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def _listing(connection: Connection, *, parked: bool, after: int, most: int) -> list[Listed]:
    rows = connection.execute(_LIST_PARKED if parked else _LIST_PENDING, (after, most)).fetchall()
    listed = []
    for *columns, answer in rows:
        number, endpoint, room, key, accepted_at, size, parked_at, reason, status = columns
        text = None if answer is None else answer.decode("utf-8", "replace")
        listed.append(Listed(number, endpoint, room, key, accepted_at, size, parked_at, reason, status, text))
    return listed


def _retry(connection: Connection, numbers: Numbers, now: Uptime) -> list[str]:
    rooms = []
    for number in _meant(connection, "parked", numbers):
        row = connection.execute("SELECT room FROM parked WHERE number = ?", (number,)).fetchone()
        if row is not None:
            connection.execute(_UNPARK, (now.time, number))
            connection.execute("DELETE FROM parked WHERE number = ?", (number,))
            rooms.append(row[0])
    return rooms


def _drop(connection: Connection, *, numbers: Numbers, parked: bool) -> int:
    table = "parked" if parked else "events"
    return sum(
        connection.execute(f"DELETE FROM {table} WHERE number = ?", (number,)).rowcount
        for number in _meant(connection, table, numbers)
    )


def _meant(connection: Connection, table: str, numbers: Numbers) -> Sequence[int]:
    if numbers is not None:
        return numbers
    return [row[0] for row in connection.execute(f"SELECT number FROM {table} ORDER BY number").fetchall()]
