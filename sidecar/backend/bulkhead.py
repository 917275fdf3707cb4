"""The bulkhead: so many calls to the backend may be under way, and the rooms share these places fairly.

    take --> a place is free and the room may have it --> granted
         '-> the room waits in line ---(a place becomes free)---> granted, and to the end of the line
                    '-> full: the room holds all it may have, and returns to the line when it gives one back

How many places there are is the concurrency limit's business. Joins come first: an event gets a place when no join
waits, or when the events hold less than their small share. Within a room the first is served first, but the call for
the room config goes before the decisions: all joins of the room wait for it, and it is one call.

One room may hold half of the places. Each answered call allows its room four places more, up to all but a sixteenth,
so that a big meeting can start. A call that fails takes that away again, so a room whose calls fail or hang never holds
more than half. To give back a place takes the same time however many rooms wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum

from sidecar.clock import Clock
from sidecar.core.concurrency import Limit
from sidecar.core.model import Endpoint


class Grant(Enum):
    """How a wait for a place ended."""

    GRANTED = "granted"
    BUSY = "no place became free in time"
    RELEASED = "the breaker opened: decide again"


Place = asyncio.Future[Grant]

MORE = 4
"""Places that each answered call allows its room. With one, a meeting of 1,000 would need one more round of calls."""


@dataclass(slots=True)
class _Room:
    held: int = 0
    answered: int = 0
    """Calls answered since the last one that failed."""
    waiting: OrderedDict[Place, str] = field(default_factory=OrderedDict)
    """With the endpoint that each is for."""


class Bulkhead:
    """At most as many calls under way at the same time as the limit says."""

    def __init__(self, limit: Limit, clock: Clock) -> None:
        """All places are free."""
        self.limit = limit
        self.held = 0
        self.waiting = 0
        """Calls of joins that wait for a place."""
        self._clock = clock
        self._rooms: dict[str, _Room] = {}
        self._line: OrderedDict[str, _Room] = OrderedDict()
        """Rooms that wait and may have another place, in turn."""
        self._full: dict[str, _Room] = {}
        """Rooms that wait and hold all that they may have. A room in neither has nobody waiting."""
        self._full_since = self._limit()
        """The limit for which those rooms were full."""
        self._events: OrderedDict[Place, None] = OrderedDict()
        self._events_hold = 0

    async def take(self, name: str, seconds: float, endpoint: str = "") -> Grant:
        """Wait for a place, at most so long. After `GRANTED` the caller must call `give_back`."""
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = _Room()
        limit = self._limit()
        if not room.waiting and self.held < limit and self._may_have(room, limit):
            self._grant(room)
            return Grant.GRANTED
        loop = asyncio.get_running_loop()
        place: Place = loop.create_future()
        room.waiting[place] = endpoint
        if endpoint == Endpoint.ROOM_CREATED:
            room.waiting.move_to_end(place, last=False)
        self.waiting += 1
        self._line_up(name, room)
        timer = loop.call_later(max(0.0, seconds), _set, place, Grant.BUSY)
        try:
            return await place
        except asyncio.CancelledError:
            if not place.cancelled() and place.result() is Grant.GRANTED:
                self.give_back(name, answered=False)
            raise
        finally:
            timer.cancel()
            self._leave(name, room, place)

    def take_spare(self, name: str) -> Grant:
        """A place for a call in the background: only while most places are free and no other call waits for one."""
        room, limit = self._rooms.get(name, _Room()), self._limit()
        if self.waiting or self.held >= max(1, limit // 2) or room.held >= max(1, limit // 4):
            return Grant.BUSY
        self._grant(self._rooms.setdefault(name, room))
        return Grant.GRANTED

    def give_back(self, name: str, *, answered: bool) -> None:
        """Free a place; `answered` says whether the backend answered the call."""
        room = self._rooms[name]
        room.held -= 1
        self.held -= 1
        room.answered = room.answered + 1 if answered else 0
        if self._full.pop(name, None) is not None:
            self._line[name] = room
        self._drop_if_idle(name, room)
        self.grant_free()

    async def take_for_event(self) -> None:
        """Wait for a place for an event; the caller must call `give_back_event`."""
        if self._event_may_have(self._limit()):
            self._grant_event()
            return
        place: Place = asyncio.get_running_loop().create_future()
        self._events[place] = None
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.give_back_event()
            raise
        finally:
            self._events.pop(place, None)

    def give_back_event(self) -> None:
        """Free the place of an event."""
        self.held -= 1
        self._events_hold -= 1
        self.grant_free()

    def configure(self, ceiling: int) -> None:
        """Another ceiling of the limit from now on; calls under way keep their places."""
        self.limit.configure(ceiling)
        self.grant_free()

    def release_waiting(self, endpoint: str) -> None:
        """End each wait for this endpoint with `RELEASED`: its breaker has opened, and it must not be asked."""
        for room in [*self._line.values(), *self._full.values()]:
            for place, waits_for in room.waiting.items():
                if waits_for == endpoint:
                    _set(place, Grant.RELEASED)

    def grant_free(self) -> None:
        """Grant free places, one at a time, to the first room in line; then that room goes to the end of the line."""
        limit = self._limit()
        self._recheck_full(limit)
        while self.held < limit:
            if self._events and self._event_may_have(limit):
                place, _ = self._events.popitem(last=False)
                if not place.done():
                    self._grant_event()
                    place.set_result(Grant.GRANTED)
            elif self._line:
                self._grant_first_in_line(limit)
            else:
                return

    def _grant_first_in_line(self, limit: int) -> None:
        name, room = self._line.popitem(last=False)
        if not self._may_have(room, limit):
            self._full[name] = room
            return
        place, _ = room.waiting.popitem(last=False)
        self.waiting -= 1
        if not place.done():
            self._grant(room)
            place.set_result(Grant.GRANTED)
        if room.waiting:
            self._line[name] = room

    def _limit(self) -> int:
        return self.limit.at(self._clock.monotonic())

    def _may_have(self, room: _Room, limit: int) -> bool:
        half = max(1, limit // 2)
        most = max(half, limit - max(1, limit // 16))
        return room.held < min(most, half + MORE * room.answered)

    def _event_may_have(self, limit: int) -> bool:
        share = max(1, limit // 16) if self.waiting else max(1, limit // 2)
        return self.held < limit and self._events_hold < share

    def _grant(self, room: _Room) -> None:
        room.held += 1
        self.held += 1

    def _grant_event(self) -> None:
        self._events_hold += 1
        self.held += 1

    def _line_up(self, name: str, room: _Room) -> None:
        if name not in self._full and name not in self._line:
            self._line[name] = room
        self.grant_free()

    def _recheck_full(self, limit: int) -> None:
        """With a higher limit, a room may have more places."""
        if limit > self._full_since and self._full:
            self._line.update(self._full)
            self._full.clear()
        self._full_since = limit

    def _leave(self, name: str, room: _Room, place: Place) -> None:
        """A wait is over; it may have ended before a place was granted."""
        if room.waiting.pop(place, None) is not None:
            self.waiting -= 1
            if not room.waiting:
                self._line.pop(name, None)
                self._full.pop(name, None)
        self._drop_if_idle(name, room)

    def _drop_if_idle(self, name: str, room: _Room) -> None:
        if not room.held and not room.waiting and self._rooms.get(name) is room:
            del self._rooms[name]  # a room of this name that came since has calls under way


def _set(place: Place, grant: Grant) -> None:
    if not place.done():
        place.set_result(grant)
