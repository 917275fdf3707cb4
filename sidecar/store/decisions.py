"""The decisions on disk: one row per key, written behind, and read in batches at start, denies first.

A row is dated with the clock of the disk (ages.py), and has a checksum over its key and its entry: SQLite has none for
its pages, and damaged data must never get into the cache. Allows and configs are deleted when they have expired; a
lasting row (a deny, an allow that leads to the lobby, a room whose guests share no answer) stays until the cache
forgets it.
"""

from __future__ import annotations

import math
import sqlite3
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from sidecar.clock import Clock
from sidecar.core.decision_body import is_lasting, is_protective, restricts
from sidecar.core.model import Entry, Key, Lifetimes, Verdict
from sidecar.facts import Emit, Notice
from sidecar.store.ages import Stamp, advance, is_off_unknown, missed, resume
from sidecar.store.database import Database
from sidecar.store.file import Connection
from sidecar.store.layout import Layout

_LOBBY = "lobby"
"""In the column `verdict`: an allow that leads to the lobby."""

_FIRST = f"verdict IN ('deny', '{_LOBBY}', 'private')"
"""The lasting rows, which are read first."""

_INDEX = f"CREATE INDEX first ON decisions (verdict) WHERE {_FIRST}"

LAYOUT = Layout(
    name="decisions.db",
    version=3,
    statements=(
        """CREATE TABLE decisions (
            number INTEGER PRIMARY KEY,
            id BLOB NOT NULL UNIQUE,   -- BLAKE2b-128 of the key
            room TEXT NOT NULL,
            room_jid TEXT,
            meeting_id TEXT,           -- JSON
            subject TEXT,              -- "id …", "email …", "token", "jid …" or "guest"
            token TEXT,                -- SHA-256 of the token, never the token
            verdict TEXT NOT NULL,     -- allow, lobby, deny, config; private (the guests of a room share no answer)
            settled REAL NOT NULL,     -- seconds of the clock of the disk, as is `kept_until`
            kept_until REAL NOT NULL,
            entry BLOB NOT NULL        -- checksum, verdict, six numbers (_HEAD), then the body: substr(entry, 54)
        )""",
        _INDEX,
        "CREATE TABLE clock (id INTEGER PRIMARY KEY CHECK (id = 1), boot TEXT, boottime REAL, wall REAL, time REAL)",
    ),
    reserve=4 * 1024 * 1024,
    salvaged={"decisions": _FIRST, "clock": "true"},
    note_loss="INSERT OR IGNORE INTO lost VALUES (?)",
    added={"lost": "CREATE TABLE lost (file TEXT PRIMARY KEY)"},  # from this one, not all denies could be read
    upgrades={
        1: (  # the checksums of its rows do not cover the key: codes without _COVERS_KEY
            "DROP INDEX denies",
            "CREATE INDEX first ON decisions (verdict) WHERE verdict IN ('deny', 'private')",
            "UPDATE decisions SET kept_until = 9e999 WHERE verdict IN ('deny', 'private')",
        ),
        2: (
            "DROP INDEX first",
            _INDEX,
            f"""UPDATE decisions SET verdict = '{_LOBBY}', kept_until = 9e999
                WHERE verdict = 'allow' AND instr(substr(entry, 54), CAST('"requireLobby":true' AS BLOB))""",
        ),
    },
)

SWEEP_EVERY = 600.0
"""Seconds between two deletions of expired rows."""

_COLUMNS = "number, id, room, room_jid, meeting_id, subject, token, entry"
_FIRST_PAGE = f"""SELECT {_COLUMNS} FROM decisions INDEXED BY first
    WHERE {_FIRST} AND verdict = ? AND number > ? ORDER BY number LIMIT ?"""
_PAGE = f"""SELECT {_COLUMNS} FROM decisions NOT INDEXED
    WHERE number > ? AND kept_until > ? AND NOT {_FIRST} ORDER BY number LIMIT ?"""
_BY_KEY = f"SELECT {_COLUMNS} FROM decisions WHERE id = ? AND kept_until > ?"
_FORGET = f"DELETE FROM decisions WHERE settled <= ? AND NOT {_FIRST}"
_IN_LOBBY = f"""SELECT {_COLUMNS} FROM decisions INDEXED BY first
    WHERE {_FIRST} AND verdict = '{_LOBBY}' AND settled <= ?"""
_UPSERT = """INSERT INTO decisions
    (id, room, room_jid, meeting_id, subject, token, verdict, settled, kept_until, entry)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET verdict = excluded.verdict, settled = excluded.settled,
    kept_until = excluded.kept_until, entry = excluded.entry"""

_HEAD = struct.Struct("<IB2d24sd")
"""CRC-32 of the key and all that follows it, verdict; asked, settled (clock of the disk), _LIFETIMES, spread."""
_LIFETIMES = struct.Struct("<3d")
_CRC = 4

_VERDICTS = (Verdict.ALLOW, Verdict.DENY, Verdict.CONFIG, Verdict.PRIVATE)
_COVERS_KEY = 128
"""Added to the code of a verdict where the checksum covers the key. For a row of version 1, its id says as much."""
_CODES = {verdict: code + _COVERS_KEY for code, verdict in enumerate(_VERDICTS)}

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
        self._first: Stamp | None = None
        self._off_unknown = False
        self._missed = 0.0
        self._swept_at = clock.monotonic()
        self._lifetimes: dict[bytes, Lifetimes] = {}

    @property
    def generation(self) -> int:
        """Grows with each new file: everything must be saved once more."""
        return self._database.generation

    @property
    def full(self) -> bool:
        """Whether the disk is full: only a few rows at a time can be written, and only protective ones."""
        return self._database.full

    async def lacks_denies(self) -> bool:
        """Whether denies were lost: not all could be read from a damaged file that was moved aside. True until somebody
        deletes that file. Raises DiskError."""
        rows = await self._database.read(lambda connection: connection.execute("SELECT file FROM lost").fetchall())
        return any(name in self._database.aside for (name,) in rows)

    async def save(self, rows: Mapping[Key, Entry | None], *, durable: bool = False) -> None:
        """Write rows, and delete those that are None, in one transaction. Raises DiskError.

        A transaction with a row that keeps somebody out or in the lobby is synced to the disk, others only if
        `durable`. One with nothing but protective rows is tried on a full disk too.
        """
        durable = durable or any(row is not None and restricts(row.verdict, row.body) for row in rows.values())
        urgent = bool(rows) and all(map(is_protective, rows.values()))
        await self._database.write(lambda connection: self._save(connection, rows), durable=durable, frees=urgent)
        self._off_unknown = False  # the rows whose age is not known have been deleted with it

    async def first(self, batch: int = 500) -> AsyncIterator[list[Remembered]]:
        """All lasting rows, a batch at a time, denies first. Raises DiskError."""
        for verdict in (Verdict.DENY.value, _LOBBY, Verdict.PRIVATE.value):
            async for entries in self._pages(partial(self._first_page, verdict=verdict, batch=batch)):
                yield entries

    async def load(self, batch: int = 500) -> AsyncIterator[list[Remembered]]:
        """All other rows that have not expired, a batch at a time; expired ones are deleted. Raises DiskError.

        The deletion is synced: a purge that comes later does not know these rows, and with another wall clock after the
        next boot they might not have expired.
        """
        async for entries in self._pages(partial(self._page, batch=batch)):
            yield entries
        await self._database.write(self._sweep, durable=True)

    async def _pages(
        self, page: Callable[..., tuple[list[Remembered], list[int], int | None]]
    ) -> AsyncIterator[list[Remembered]]:
        after: int | None = 0
        damaged: list[int] = []
        while after is not None:
            entries, bad, after = await self._database.read(partial(page, after=after))
            damaged += bad
            if entries:
                yield entries
        if damaged:
            self._emit(Notice(f"{LAYOUT.name}: {len(damaged)} damaged rows are left out", level="error"))
            await self._database.write(partial(_delete, numbers=damaged), durable=False)

    def missed(self) -> float:
        """Seconds by which rows from before this boot are older than the entries that were read from them say."""
        if self._first is not None:
            self._missed = max(self._missed, missed(self._first, self._clock.monotonic(), self._clock.wall()))
        return self._missed

    async def recall(self, key: Key) -> list[Remembered]:
        """The entry of one key, in a list; an empty one if there is none."""
        return await self._database.read(lambda connection: self._recall(connection, key))

    async def replace(self, rows: Mapping[Key, Entry | None]) -> None:
        """Delete every row and write these, in one transaction. Raises DiskError."""

        def replace(connection: Connection) -> None:
            connection.execute("DELETE FROM decisions")
            self._save(connection, rows)

        await self._database.write(replace, durable=True)

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

    def _sweep(self, connection: Connection) -> None:
        now = self._now(connection, write=True)
        self._swept_at = now.boottime
        connection.execute("DELETE FROM decisions WHERE kept_until <= ?", (now.time,))

    def _first_page(
        self, connection: Connection, *, verdict: str, after: int, batch: int
    ) -> tuple[list[Remembered], list[int], int | None]:
        return self._page_of(connection, _fetch(connection, _FIRST_PAGE, verdict, after, batch))

    def _page(
        self, connection: Connection, *, after: int, batch: int
    ) -> tuple[list[Remembered], list[int], int | None]:
        now = self._now(connection)
        return self._page_of(connection, _fetch(connection, _PAGE, after, now.time, batch))

    def _page_of(self, connection: Connection, rows: list[Any]) -> tuple[list[Remembered], list[int], int | None]:
        entries, damaged = self._entries(rows, self._base(connection))
        return self._usable(entries), damaged, rows[-1][0] if rows else None

    def _recall(self, connection: Connection, key: Key) -> list[Remembered]:
        now = self._now(connection)
        rows = _fetch(connection, _BY_KEY, _identify(key), now.time)
        entries, _ = self._entries(rows, self._base(connection))
        return self._usable(entries)

    def _usable(self, entries: list[Remembered]) -> list[Remembered]:
        """If the age of the rows is not known: those that are lasting, and none of them as an allow."""
        if not self._off_unknown:
            return entries
        return [(key, _expired(entry)) for key, entry in entries if is_lasting(entry)]

    def _entries(self, rows: list[Any], base: Stamp) -> tuple[list[Remembered], list[int]]:
        """The undamaged rows as entries, and the numbers of the damaged rows.

        A hundred thousand rows pass here at start, so this is written for speed. `base` is the first stamp of this
        process; what became known later about the time before is `missed`.
        """
        entries, damaged = [], []
        shift = base.boottime - base.time
        crc32, unpack, size, known, new = (
            zlib.crc32,
            _HEAD.unpack_from,
            _HEAD.size,
            self._lifetimes,
            tuple.__new__,
        )
        for number, identity, room, jid, meeting, subject, token, raw in rows:
            try:
                checksum, code, asked, settled, limits, spread = unpack(raw)
                said = _VERDICTS[code % _COVERS_KEY]
                key = new(Key, (said.endpoint, room, jid, meeting, subject, token))
                if code >= _COVERS_KEY:
                    whole = checksum == crc32(raw[_CRC:], crc32(_covered(key)))
                else:
                    whole = checksum == crc32(raw[_CRC:]) and identity == _identify(key)
            except (
                TypeError,
                AttributeError,
                IndexError,
                struct.error,
            ):  # of another type or size than what was written
                whole = False
            if not whole:
                damaged.append(number)
                continue
            lifetimes = known.get(limits) or self._new_lifetimes(limits)
            entries.append((key, Entry(said, raw[size:], asked + shift, settled + shift, lifetimes, spread)))
        return entries, damaged

    def _new_lifetimes(self, packed: bytes) -> Lifetimes:
        """Few lifetimes differ, so entries share them."""
        if len(self._lifetimes) > 10_000:
            self._lifetimes.clear()
        return self._lifetimes.setdefault(packed, Lifetimes(*_LIFETIMES.unpack(packed)))

    def _base(self, connection: Connection) -> Stamp:
        """The first stamp of this process."""
        self._now(connection)
        assert self._first is not None
        return self._first

    def _now(self, connection: Connection, *, write: bool = False) -> Stamp:
        boottime, wall = self._clock.monotonic(), self._clock.wall()
        if self._stamp is None:
            row = connection.execute("SELECT boot, boottime, wall, time FROM clock").fetchone()
            last = Stamp(*row) if row else None
            self._off_unknown = is_off_unknown(last, self._boot, boottime, wall)
            self._first = self._stamp = resume(last, self._boot, boottime, wall)
        else:
            self._stamp = advance(self._stamp, boottime, wall)
        if write:
            self._write(connection, self._stamp)
        return self._stamp

    def _write(self, connection: Connection, stamp: Stamp) -> None:
        row = (stamp.boot, stamp.boottime, stamp.wall, stamp.time)
        connection.execute("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)", row)
        if self._off_unknown and self._first is not None:
            # With the new stamp the file does not say any more which rows are of an unknown age.
            before = self._first.time - self._first.boottime + 0.001  # more than the rounding error
            connection.execute(_FORGET, (before,))
            in_lobby, _ = self._entries(_fetch(connection, _IN_LOBBY, before), self._first)
            rows = [_row(key, _expired(entry), self._first) for key, entry in in_lobby]
            connection.executemany(_UPSERT, filter(None, rows))


def _fetch(connection: Connection, query: str, *values: Any) -> list[Any]:
    """The rows. A text that is damaged and not UTF-8 any more must not keep the others from being read: the checksum of
    its row shows the damage."""
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if "UTF-8" not in str(error):
            raise
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection.execute(query, values).fetchall()


def _delete(connection: Connection, *, numbers: Sequence[int]) -> None:
    connection.executemany("DELETE FROM decisions WHERE number = ?", [(number,) for number in numbers])


def _expired(entry: Entry) -> Entry:
    """An entry that says what must not happen, and is no answer."""
    return entry._replace(lifetimes=Lifetimes(0, 0, 0)) if entry.verdict is Verdict.ALLOW else entry


def _row(key: Key, entry: Entry, now: Stamp) -> tuple[Any, ...] | None:
    if not _storable(key) or key.endpoint is not entry.verdict.endpoint:
        return None
    limits, verdict = entry.lifetimes, entry.verdict.value
    asked, settled = now.at(entry.asked_at), now.at(entry.settled_at)
    kept_until = asked + limits.total
    if is_lasting(entry):
        kept_until = math.inf
        verdict = _LOBBY if entry.verdict is Verdict.ALLOW else verdict
    lifetimes = _LIFETIMES.pack(limits.fresh, limits.stale_while_revalidate, limits.stale_if_error)
    covered = _HEAD.pack(0, _CODES[entry.verdict], asked, settled, lifetimes, entry.spread)[_CRC:] + entry.body
    packed = zlib.crc32(covered, zlib.crc32(_covered(key))).to_bytes(_CRC, "little") + covered
    return _identify(key), *key[1:], verdict, settled, kept_until, packed


def _covered(key: Key) -> bytes:
    """What the checksum covers of a key: only room and subject can hold a NUL, and no part is ever an empty text."""
    _, room, room_jid, meeting_id, subject, token = key
    return f"{len(room)}\0{room_jid or ''}\0{meeting_id or ''}\0{token or ''}\0{room}{subject or ''}".encode()


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
