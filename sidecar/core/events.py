"""The values of the outbox: events that wait, what became of them, how much it may hold; and rooms that are open."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sidecar.core.model import Endpoint, Event
from sidecar.core.wire import BODY_LIMIT

ANSWER_KEPT = 4096
"""Bytes of the backend's answer that are kept with a parked event."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the outbox may hold. When it is full, new events are refused; no older event is deleted for them."""

    max_events: int = 100_000
    """Events that wait."""
    max_bytes: int = 256 * 1024 * 1024
    """Bytes of the bodies of the events that wait; the parked ones may have as many."""
    max_age: float = 7 * 86_400.0
    """Seconds, counted while the machine is up, after which an event is parked when its next attempt fails too."""
    max_parked: int = 10_000
    """Events that are parked. With more, the oldest of them are deleted, and a notice says so."""


_BESIDE_A_BODY = 2_560
"""Bytes that an event takes on disk beside its body, at the most (measured: 2,312, with bodies of half a page)."""

_BESIDE_EVENTS = 56 * 1024 * 1024
"""Bytes for the digests of delivered events, the orders, the three reserves and the logs."""


def least_volume(limits: Limits, remembered: int) -> int:
    """Bytes that the file system must have, so that the outbox is full before the disk is; three quarters are for all
    but the parked events. `remembered`: answers that the cache may hold."""
    waiting = min(limits.max_bytes, limits.max_events * BODY_LIMIT) + limits.max_events * _BESIDE_A_BODY
    return (waiting + _BESIDE_EVENTS + remembered * 512) * 4 // 3


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that waits; numbers grow in the order of acceptance."""

    number: int
    name: bytes
    """The digest of its idempotency key, room and endpoint."""
    event: Event
    since: float
    """The instant of CLOCK_BOOTTIME since which it waits; before this boot it may be negative."""
    damaged: bool = False
    """Its checksum is wrong: it must not be sent."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What became of an event: delivered, or (with a reason) parked. Number and name must both match."""

    number: int
    name: bytes
    size: int
    room: str
    reason: str | None = None
    status: int | None = None
    answer: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Listed:
    """An event as an operator sees it: everything but the body."""

    number: int
    endpoint: str
    room: str
    idempotency_key: str
    accepted_at: float
    size: int
    parked_at: float | None = None
    reason: str | None = None
    status: int | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Stock:
    """How much the outbox holds."""

    pending: int = 0
    bytes: int = 0
    parked: int = 0
    oldest_at: float | None = None
    """The instant of CLOCK_BOOTTIME since which the oldest waiting event waits."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What follows from marks that were written."""

    oldest_at: float | None
    thrown_away: int = 0
    """Parked events that were deleted, since there were too many."""


Numbers = Sequence[int] | None
"""Which events an operator means; None: all that are parked."""


class OpenRoom(NamedTuple):
    """A room that was open when something was last heard of it."""

    room: str
    room_jid: str
    meeting_id: Any = None


def started_at(boot: str) -> float | None:
    """When the Prosody of this boot was started (Unix seconds): its boot begins with it. None: it does not say."""
    seconds = boot.partition("-")[0]
    return float(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 12 else None


def room_left_behind(room: OpenRoom, boot: str, at: float) -> Event:
    """The end of a room whose Prosody was killed; always with the same key for this boot."""
    said = {"event": "room-destroyed", "roomName": room.room, "roomJid": room.room_jid, "timestamp": int(at)}
    if room.meeting_id is not None:
        said["meetingId"] = room.meeting_id
    body = json.dumps({**said, "reason": "all_users_left", "cause": "server-restart"}).encode()
    digest = hashlib.sha256(room.room_jid.encode()).hexdigest()[:16]  # a room's name may be there under two hosts
    return Event(Endpoint.ROOM_DESTROYED, room.room, body, f"server-restart-{boot}-{digest}", at)
