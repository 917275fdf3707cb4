"""The bulkhead: so many calls to the backend may be under way, and the rooms share these places fairly.

One room may hold half of the places. Each answered call allows its room one place more, up to all but a sixteenth, so
that a big meeting can start. A call that fails takes that away again, so a room whose calls fail or hang never holds
more than half. Free places go to the waiting rooms in turn.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum


class Grant(Enum):
    """How a wait for a place ended."""

    GRANTED = "granted"
    BUSY = "no place became free in time"
    RELEASED = "the breaker opened: decide again"


@dataclass(slots=True)
class _Room:
    held: int = 0
    answered: int = 0
    """Calls answered since the last one that failed."""
    waiting: deque[asyncio.Future[Grant]] = field(default_factory=deque)


class Bulkhead:
    """At most `limit` calls under way at the same time."""

    def __init__(self, limit: int) -> None:
        """All places are free."""
        self.limit = limit
        self.held = 0
        self._rooms: OrderedDict[str, _Room] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return sum(len(room.waiting) for room in self._rooms.values())

    async def take(self, name: str, seconds: float) -> Grant:
        """Wait for a place, at most so long. After `GRANTED` the caller must call `give_back`."""
        room = self._rooms.setdefault(name, _Room())
        if self._may_have(room) and not room.waiting:
            self._grant(room)
            return Grant.GRANTED
        place: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        room.waiting.append(place)
        try:
            await asyncio.wait([place], timeout=max(0.0, seconds))
        except asyncio.CancelledError:
            if place.done() and place.result() is Grant.GRANTED:
                self.give_back(name, answered=False)
            raise
        finally:
            if not place.done():
                room.waiting.remove(place)
                self._drop_if_idle(name, room)
        return place.result() if place.done() else Grant.BUSY

    def take_spare(self, name: str) -> Grant:
        """A place for a call in the background: only while most places are free and no other call waits for one."""
        room = self._rooms.get(name, _Room())
        if self.waiting or self.held >= max(1, self.limit // 2) or room.held >= max(1, self.limit // 4):
            return Grant.BUSY
        self._grant(self._rooms.setdefault(name, room))
        return Grant.GRANTED

    def give_back(self, name: str, *, answered: bool) -> None:
        """Free a place; `answered` says whether the backend answered the call."""
        room = self._rooms[name]
        room.held -= 1
        self.held -= 1
        room.answered = room.answered + 1 if answered else 0
        self._drop_if_idle(name, room)
        self._grant_free()

    def release_waiting(self) -> None:
        """End every wait with `RELEASED`: the breaker has opened, and the backend must not be asked."""
        for name, room in list(self._rooms.items()):
            while room.waiting:
                room.waiting.popleft().set_result(Grant.RELEASED)
            self._drop_if_idle(name, room)

    def resize(self, limit: int) -> None:
        """Another number of places; calls under way keep theirs."""
        self.limit = limit
        self._grant_free()

    def _may_have(self, room: _Room) -> bool:
        half = max(1, self.limit // 2)
        most = max(half, self.limit - max(1, self.limit // 16))
        return self.held < self.limit and room.held < min(most, half + room.answered)

    def _grant(self, room: _Room) -> None:
        room.held += 1
        self.held += 1

    def _grant_free(self) -> None:
        """Grant free places, one at a time, to the first room in line; then that room goes to the end of the line."""
        while self.held < self.limit and (name := self._first_in_line()) is not None:
            room = self._rooms[name]
            self._grant(room)
            room.waiting.popleft().set_result(Grant.GRANTED)
            self._rooms.move_to_end(name)

    def _first_in_line(self) -> str | None:
        return next((name for name, room in self._rooms.items() if room.waiting and self._may_have(room)), None)

    def _drop_if_idle(self, name: str, room: _Room) -> None:
        if not room.held and not room.waiting:
            self._rooms.pop(name, None)
