"""Which allows of a room are suspect, because somebody was denied there later.

For a room in use this is kept as long as the room is. For other rooms it matters only while a call that was sent before
the deny is under way, so the latest ones are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from cachetools import LRUCache

from sidecar.core.policy import NEVER
from sidecar.decisions.rooms_in_use import RoomsInUse


@dataclass(slots=True)
class _Suspicion:
    """Since `since`, the room's allows that were asked before `before` are suspect. A deny that came too soon after
    `since` waits in `next_before`."""

    before: float
    since: float
    next_before: float | None = None


class Suspicions:
    """By room."""

    def __init__(self, in_use: RoomsInUse, unused: int) -> None:
        """`unused`: for how many rooms that are not in use it is remembered."""
        self._by_room: dict[str, _Suspicion] = {}
        self._unused: LRUCache[str, None] = LRUCache(unused)
        self._in_use = in_use
        in_use.on_enter.append(lambda room: self._unused.pop(room, None))
        in_use.on_leave.append(self._room_left)

    def denied(self, room: str, now: float, every: float) -> None:
        """A definite deny arrived: the room's allows that were asked before now are suspect.

        At most once per `every` seconds, so that many denies do not send all users of a room to the backend again and
        again. A deny that comes sooner takes effect when these seconds have passed.
        """
        suspicion = self._by_room.get(room)
        if suspicion is None:
            self._add(room, now)
        elif now - suspicion.since >= every:
            suspicion.before, suspicion.since, suspicion.next_before = now, now, None
        else:
            suspicion.next_before = now

    def denied_before_start(self, room: str, denied_at: float) -> None:
        """The disk remembers a deny."""
        suspicion = self._by_room.get(room)
        if suspicion is None:
            self._add(room, denied_at)
        else:
            suspicion.before = max(suspicion.before, denied_at)

    def before(self, room: str, now: float, every: float) -> float:
        """Allows of the room that were asked before this instant are suspect now; NEVER: none is."""
        if room not in self._by_room:
            return NEVER
        suspicion = self._by_room[room]
        if suspicion.next_before is not None and now - suspicion.since >= every:
            suspicion.before, suspicion.since, suspicion.next_before = suspicion.next_before, now, None
        return suspicion.before

    def _add(self, room: str, at: float) -> None:
        self._by_room[room] = _Suspicion(at, at)
        if room not in self._in_use:
            self._room_left(room)

    def _room_left(self, room: str) -> None:
        if room not in self._by_room:
            return
        if len(self._unused) >= self._unused.maxsize:
            forgotten, _ = self._unused.popitem()
            del self._by_room[forgotten]
        self._unused[room] = None
