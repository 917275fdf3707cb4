"""The rooms that are open, as far as the events tell: written in the transaction of the events themselves.

When a Prosody was killed, nobody sends `room-destroyed` for its rooms. The sidecar does it, if that Prosody has sent
such events before: then the backend wants them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sidecar.core.events import OpenRoom
from sidecar.core.model import Endpoint, Event
from sidecar.store.database import Database
from sidecar.store.file import Connection

TABLES = {
    "open_rooms": """CREATE TABLE open_rooms (
        room_jid TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        room TEXT NOT NULL,
        meeting_id TEXT,              -- JSON
        seen_at REAL NOT NULL         -- Unix seconds of the last event in it
    ) WITHOUT ROWID""",
    "closing_hosts": "CREATE TABLE closing_hosts (host TEXT PRIMARY KEY) WITHOUT ROWID",
}

MOST_ROOMS = 20_000
"""Open rooms that are remembered; with more, those with the oldest events are forgotten."""
MOST_HOSTS = 100

_SEEN = """INSERT INTO open_rooms (room_jid, host, room, meeting_id, seen_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (room_jid) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at), meeting_id = excluded.meeting_id"""
_CLOSING = "INSERT OR IGNORE INTO closing_hosts SELECT ? WHERE (SELECT count(*) FROM closing_hosts) < ?"
_LEFT_BEHIND = """SELECT room, room_jid, meeting_id FROM open_rooms
    WHERE host = ?1 AND seen_at < ?2 AND EXISTS (SELECT 1 FROM closing_hosts WHERE host = ?1)"""
_FORGET = "DELETE FROM open_rooms WHERE room_jid = (SELECT room_jid FROM open_rooms ORDER BY seen_at LIMIT 1)"


class OpenRooms:
    """The rows. Raises DiskError."""

    def __init__(self, database: Database) -> None:
        """The database is the one of the outbox."""
        self._database = database

    async def left_behind(self, host: str, before: float) -> list[OpenRoom]:
        """The rooms of this host of which nothing was heard since that time (Unix seconds)."""
        rows = await self._database.read(lambda connection: connection.execute(_LEFT_BEHIND, (host, before)).fetchall())
        return [OpenRoom(room, jid, None if meeting is None else json.loads(meeting)) for room, jid, meeting in rows]


def note(connection: Connection, events: Sequence[Event]) -> None:
    """Note what these events say about rooms: a room in which something happens is open until it is destroyed."""
    for event in events:
        try:
            said = json.loads(event.body)
            jid, at = said["roomJid"], said.get("timestamp", event.accepted_at)
            host = jid.partition("@")[2]
            jid.encode(), event.room.encode()
        except (AttributeError, KeyError, TypeError, ValueError):
            continue  # of another sender than our module
        if not host or not isinstance(at, int | float):
            continue
        if event.endpoint is Endpoint.ROOM_DESTROYED:
            connection.execute("DELETE FROM open_rooms WHERE room_jid = ?", (jid,))
            connection.execute(_CLOSING, (host, MOST_HOSTS))
        elif event.endpoint is not Endpoint.ORDER_EXPIRED:
            meeting = None if said.get("meetingId") is None else json.dumps(said["meetingId"])
            connection.execute(_SEEN, (jid, host, event.room, meeting, float(at)))
            if connection.execute("SELECT count(*) FROM open_rooms").fetchone()[0] > MOST_ROOMS:
                connection.execute(_FORGET)
