"""The decisions on disk: one row per key, written behind, and read in batches at start.

A row is dated with the clock of the disk (ages.py), and has a checksum: SQLite has none for its pages, and damaged
data must never get into the cache.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from sidecar.clock import Clock
from sidecar.core.model import Entry, Key, Lifetimes, Verdict
from sidecar.facts import Emit, Notice
from sidecar.store.ages import Stamp, advance, resume
from sidecar.store.database import Database
from sidecar.store.file import Connection, Layout

LAYOUT = Layout(
    name="decisions.db",
    version=1,
    statements=(
        """CREATE TABLE decisions (
            number INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE,   -- BLAKE2b-128 of the key
            room TEXT NOT NULL,
            room_jid TEXT,
            meeting_id TEXT,           -- JSON
            subject TEXT,              -- "id …", "email …", "token", "jid …" or "guest"
            token TEXT,                -- SHA-256 of the token, never the token
            verdict TEXT NOT NULL,     -- allow, deny (of validate-access), config (of room-created)
            settled REAL NOT NULL,     -- seconds of the clock of the disk, as is `kept_until`
            kept_until REAL NOT NULL,
            entry BLOB NOT NULL        -- checksum, verdict, six numbers (_HEAD), then the body: substr(entry, 54)
        )""",
        "CREATE INDEX denies ON decisions (room, settled) WHERE verdict = 'deny'",
        "CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT, boottime REAL, wall REAL, time REAL)",
    ),
)

DENY_KEPT = 3600.0
"""Seconds for which the row of a deny is kept at least: it makes the room's older allows suspect after a restart."""

SWEEP_EVERY = 600.0
"""Seconds between two deletions of expired rows."""

_COLUMNS = "number, room, room_jid, meeting_id, subject, token, entry"
_PAGE = f"SELECT {_COLUMNS} FROM decisions WHERE number > ? AND kept_until > ? ORDER BY number LIMIT ?"
_BY_KEY = f"SELECT {_COLUMNS} FROM decisions WHERE id = ? AND kept_until > ?"
_LAST_DENY = f"SELECT {_COLUMNS} FROM decisions WHERE room = ? AND verdict = 'deny' ORDER BY settled DESC LIMIT 1"
_UPSERT = """INSERT INTO decisions
    (id, room, room_jid, meeting_id, subject, token, verdict, settled, kept_until, entry)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET verdict = excluded.verdict, settled = excluded.settled,
    kept_until = excluded.kept_until, entry = excluded.entry"""

_HEAD = struct.Struct("<IB2d24sd")
"""CRC-32 of all that follows it, verdict; asked, settled (clock of the disk), _LIFETIMES, spread."""
_LIFETIMES = struct.Struct("<3d")
_CRC = 4

_VERDICTS = (Verdict.ALLOW, Verdict.DENY, Verdict.CONFIG)
_CODES = {verdict: code for code, verdict in enumerate(_VERDICTS)}

Remembered = tuple[Key, Entry]


class Decisions:
    """The rows. Instants in entries are CLOCK_BOOTTIME seconds of this boot; those before this boot are negative."""

    def __init__(self, database: Database, clock: Clock, boot: str, emit: Emit) -> None:
        """`boot` names this boot of the machine: after another boot, CLOCK_BOOTTIME has started again at zero."""
        self._database = database
        self._clock = clock
        self._boot = boot
        self._emit = emit
        self._stamp: Stamp | None = None
        self._swept_at = clock.monotonic()
        self._lifetimes: dict[bytes, Lifetimes] = {}

    @property
    def generation(self) -> int:
        """Grows with each new file: everything must be saved once more."""
        return self._database.generation

    async def save(self, rows: Mapping[Key, Entry | None], *, durable: bool = False) -> None:
        """Write rows, and delete those that are None, in one transaction. Raises DiskError.

        A transaction that holds a deny is synced to the disk, others only if `durable`.
        """
        durable = durable or any(row is not None and row.verdict is Verdict.DENY for row in rows.values())
        await self._database.write(lambda connection: self._save(connection, rows), durable=durable)

    async def load(self, batch: int = 500) -> AsyncIterator[list[Remembered]]:
        """All rows that have not expired, a batch at a time; the others are deleted. Raises DiskError."""
        after: int | None = 0
        damaged: list[int] = []
        while after is not None:
            job = partial(self._page, after=after, batch=batch, damaged=damaged)
            after, entries = await self._database.read(job)
            if entries:
                yield entries
        if damaged:
            self._emit(Notice(f"{LAYOUT.name}: {len(damaged)} damaged rows are left out", level="error"))
        await self._database.write(partial(self._sweep, damaged=damaged), durable=False)

    async def recall(self, key: Key) -> list[Remembered]:
        """The entry of one key, and the last deny of its room, which may make the entry suspect."""
        return await self._database.read(lambda connection: self._recall(connection, key))

    async def clear(self) -> None:
        """Delete every row. Raises DiskError."""
        await self._database.write(lambda connection: connection.execute("DELETE FROM decisions"), durable=True)

    def _save(self, connection: Connection, rows: Mapping[Key, Entry | None]) -> None:
        now = self._now(connection, write=True)
        gone, kept = [], []
        for key, entry in rows.items():
            if entry is None:
                gone.append((_identify(key),))
            elif (row := _row(key, entry, now)) is not None:
                kept.append(row)
        connection.executemany("DELETE FROM decisions WHERE id = ?", gone)
        connection.executemany(_UPSERT, kept)
        if now.boottime - self._swept_at >= SWEEP_EVERY:
            self._sweep(connection)

    def _sweep(self, connection: Connection, damaged: Sequence[int] = ()) -> None:
        now = self._now(connection, write=True)
        self._swept_at = now.boottime
        connection.execute("DELETE FROM decisions WHERE kept_until <= ?", (now.time,))
        connection.executemany("DELETE FROM decisions WHERE number = ?", [(number,) for number in damaged])

    def _page(
        self, connection: Connection, *, after: int, batch: int, damaged: list[int]
    ) -> tuple[int | None, list[Remembered]]:
        now = self._now(connection)
        rows = connection.execute(_PAGE, (after, now.time, batch)).fetchall()
        entries, bad = self._entries(rows, now)
        damaged += bad
        return (rows[-1][0] if rows else None), entries

    def _recall(self, connection: Connection, key: Key) -> list[Remembered]:
        now = self._now(connection)
        rows = connection.execute(_BY_KEY, (_identify(key), now.time)).fetchall()
        if rows and _storable(key):
            rows += connection.execute(_LAST_DENY, (key.room,)).fetchall()
        return self._entries(rows, now)[0]

    def _entries(self, rows: list[Any], now: Stamp) -> tuple[list[Remembered], list[int]]:
        """The undamaged rows as entries, and the numbers of the damaged rows.

        A hundred thousand rows pass here at start, so this is written for speed.
        """
        entries, damaged = [], []
        shift = now.boottime - now.time
        crc32, unpack, size, known, new = (
            zlib.crc32,
            _HEAD.unpack_from,
            _HEAD.size,
            self._lifetimes,
            tuple.__new__,
        )
        for number, room, jid, meeting, subject, token, raw in rows:
            try:
                checksum, code, asked, settled, limits, spread = unpack(raw)
                said = _VERDICTS[code]
                whole = checksum == crc32(raw[_CRC:])
            except (TypeError, IndexError, struct.error):  # of another type or size than what was written
                whole = False
            if not whole:
                damaged.append(number)
                continue
            lifetimes = known.get(limits) or self._new_lifetimes(limits)
            entry = Entry(said, raw[size:], asked + shift, settled + shift, lifetimes, spread)
            entries.append((new(Key, (said.endpoint, room, jid, meeting, subject, token)), entry))
        return entries, damaged

    def _new_lifetimes(self, packed: bytes) -> Lifetimes:
        """Few lifetimes differ, so entries share them."""
        if len(self._lifetimes) > 10_000:
            self._lifetimes.clear()
        return self._lifetimes.setdefault(packed, Lifetimes(*_LIFETIMES.unpack(packed)))

    def _now(self, connection: Connection, *, write: bool = False) -> Stamp:
        boottime, wall = self._clock.monotonic(), self._clock.wall()
        if self._stamp is None:
            row = connection.execute("SELECT boot, boottime, wall, time FROM clock").fetchone()
            self._stamp = resume(Stamp(*row) if row else None, self._boot, boottime, wall)
        else:
            self._stamp = advance(self._stamp, boottime, wall)
        if write:
            stamp = self._stamp
            row = (stamp.boot, stamp.boottime, stamp.wall, stamp.time)
            connection.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)", row)
        return self._stamp


def _row(key: Key, entry: Entry, now: Stamp) -> tuple[Any, ...] | None:
    if not _storable(key) or key.endpoint is not entry.verdict.endpoint:
        return None
    limits = entry.lifetimes
    asked, settled = now.at(entry.asked_at), now.at(entry.settled_at)
    kept_until = asked + limits.total
    if entry.verdict is Verdict.DENY:
        kept_until = max(kept_until, settled + DENY_KEPT)
    lifetimes = _LIFETIMES.pack(limits.fresh, limits.stale_while_revalidate, limits.stale_if_error)
    # The checksum does not cover the texts of the key. They lie in front of it in the same row, and damage comes a
    # sector at a time, so it reaches the checksum as well.
    covered = _HEAD.pack(0, _CODES[entry.verdict], asked, settled, lifetimes, entry.spread)[_CRC:] + entry.body
    packed = zlib.crc32(covered).to_bytes(_CRC, "little") + covered
    return _identify(key), *key[1:], entry.verdict.value, settled, kept_until, packed


def _identify(key: Key) -> bytes:
    return blake2b(repr((str(key.endpoint), *key[1:])).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _storable(key: Key) -> bool:
    """Whether the key can be written as UTF-8. A lone surrogate, which JSON allows, cannot: such a key is only kept in
    memory."""
    try:
        "\0".join(part for part in key[1:] if part).encode()
    except UnicodeEncodeError:
        return False
    return True
