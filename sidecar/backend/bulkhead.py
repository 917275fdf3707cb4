"""The places for calls under way to the backend, shared fairly between rooms.

One room may hold half of them. A room whose calls are being answered earns more, up to all but a sixteenth, so that a
big meeting can start; a room whose calls fail or hang never gets beyond its half. Free places go to the waiting rooms
in turn.
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
    RELEASED = "sent away to decide again"


@dataclass(slots=True)
class _Room:
    held: int = 0
    earned: int = 0
    waiting: deque[asyncio.Future[Grant]] = field(default_factory=deque)


class Bulkhead:
    """At most `limit` places."""

    def __init__(self, limit: int) -> None:
        """All free."""
        self.limit = limit
        self.held = 0
        self._rooms: OrderedDict[str, _Room] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return sum(len(room.waiting) for room in self._rooms.values())

    async def take(self, name: str, seconds: float) -> Grant:
        """Wait for a place, at most so long. `GRANTED` obliges to `give_back`."""
        room = self._rooms.setdefault(name, _Room())
        if self._may_have(room) and not room.waiting:
            self._hand_out(room)
            return Grant.GRANTED
        place: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()
        room.waiting.append(place)
        try:
            await asyncio.wait([place], timeout=max(0.0, seconds))
        except asyncio.CancelledError:
            if place.done() and place.result() is Grant.GRANTED:
                self.give_back(name, well=False)
            raise
        finally:
            if not place.done():
                room.waiting.remove(place)
                self._tidy(name, room)
        return place.result() if place.done() else Grant.BUSY

    def take_spare(self, name: str) -> Grant:
        """A place for a call nobody waits for: only while most are free, so that it never delays one somebody does."""
        room = self._rooms.get(name, _Room())
        if self.waiting or self.held >= max(1, self.limit // 2) or room.held >= max(1, self.limit // 4):
            return Grant.BUSY
        self._hand_out(self._rooms.setdefault(name, room))
        return Grant.GRANTED

    def give_back(self, name: str, *, well: bool) -> None:
        """Free a place; `well` says whether the call was answered."""
        room = self._rooms[name]
        room.held -= 1
        self.held -= 1
        room.earned = room.earned + 1 if well else 0
        self._tidy(name, room)
        self._serve()

    def release_waiting(self) -> None:
        """Send everybody who waits away: asking has become useless."""
        for name, room in list(self._rooms.items()):
            while room.waiting:
                room.waiting.popleft().set_result(Grant.RELEASED)
            self._tidy(name, room)

    def resize(self, limit: int) -> None:
        """Another number of places; those held stay held."""
        self.limit = limit
        self._serve()

    def _may_have(self, room: _Room) -> bool:
        half = max(1, self.limit // 2)
        most = max(half, self.limit - max(1, self.limit // 16))
        return self.held < self.limit and room.held < min(most, half + room.earned)

    def _hand_out(self, room: _Room) -> None:
        room.held += 1
        self.held += 1

    def _serve(self) -> None:
        served = True
        while served and self.held < self.limit:
            served = False
            for name, room in list(self._rooms.items()):
                if room.waiting and self._may_have(room):
                    self._hand_out(room)
                    room.waiting.popleft().set_result(Grant.GRANTED)
                    self._rooms.move_to_end(name)
                    served = True

    def _tidy(self, name: str, room: _Room) -> None:
        if not room.held and not room.waiting:
            self._rooms.pop(name, None)
