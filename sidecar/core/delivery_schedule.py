"""Which room's event is delivered next. It has no clock, delivers nothing, and holds no event.

A room has one delivery at a time, so its order is kept. Rooms take turns. A room that failed waits, longer each time,
and such rooms hold at most half of the places, so a room that hangs does not delay the others.

    add -> ready ---take---> in flight --release--> ready again, or forgotten
             ^                  |
             +---- later <---failed          three rooms failed and none succeeded: the backend is down, and only
                                             one room tries at a time, less and less often, until one succeeds
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pacing:
    """How often the outbox tries; seconds."""

    max_in_flight: int = 16
    base: float = 1.0
    """After the first failure of a room."""
    cap: float = 60.0
    """The longest wait between two attempts of one room."""
    probe_cap: float = 15.0
    """The longest wait between two attempts at all while the backend is down."""
    down_after: int = 3
    """When so many different rooms fail with no success between, the backend is down, not single rooms."""
    longest_retry_after: float = 3600.0
    """A longer `Retry-After` is cut to this."""


def next_delay(attempt: int, jitter: float, *, base: float, cap: float) -> float:
    """Seconds before attempt number `attempt` + 1. They double from `base` up to `cap`; `jitter` (0 to 1) takes off up
    to a half, so that calls that failed together are not repeated together."""
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 32))
    return ceiling * (1 - jitter / 2)


@dataclass(slots=True)
class _Room:
    in_flight: bool = False
    again: bool = False
    attempts: int = 0
    asked_to_wait: bool = False


class Schedule:
    """The rooms that have something to deliver."""

    def __init__(self, pacing: Pacing) -> None:
        """No room has anything to deliver, and the backend is taken to be up."""
        self._pacing = pacing
        self._rooms: dict[str, _Room] = {}
        self._ready: deque[str] = deque()
        self._retry: deque[str] = deque()
        self._later: list[tuple[float, int, str]] = []
        self._count = 0
        self._in_flight = 0
        self._retrying = 0
        self._failed: set[str] = set()
        self._strikes = 0
        self._probed_at = 0.0
        self._probe_at = 0.0

    def __len__(self) -> int:
        """Rooms that have something to deliver."""
        return len(self._rooms)

    @property
    def down(self) -> bool:
        """Whether the backend is taken to be down."""
        return self._strikes > 0

    def attempts(self, room: str) -> int:
        """How often the first event of the room has failed."""
        known = self._rooms.get(room)
        return known.attempts if known else 0

    def add(self, room: str) -> None:
        """The room has one more event."""
        known = self._rooms.get(room)
        if known is None:
            self._rooms[room] = _Room()
            self._ready.append(room)
        elif known.in_flight:
            known.again = True

    def take(self, now: float) -> str | None:
        """The next room, or None; it is in flight until it is released, failed or postponed."""
        while self._later and self._later[0][0] <= now:
            self._retry.append(heapq.heappop(self._later)[2])
        if self._in_flight >= (1 if self.down else self._pacing.max_in_flight):
            return None
        room = self._next(now)
        if room is None:
            return None
        self._probed_at = now
        known = self._rooms[room]
        known.in_flight, known.again = True, False
        self._in_flight += 1
        self._retrying += known.attempts > 0
        return room

    def _next(self, now: float) -> str | None:
        if self.down:
            # A room that has not failed yet may show that only the other rooms fail, so it waits less.
            if self._ready and now >= min(self._probe_at, self._probed_at + self._pacing.base):
                return self._ready.popleft()
            return self._retry.popleft() if self._retry and now >= self._probe_at else None
        if self._retry and self._retrying < max(1, self._pacing.max_in_flight // 2):
            return self._retry.popleft()
        return self._ready.popleft() if self._ready else None

    def wake_at(self) -> float | None:
        """When to call `take` again if nothing else happens until then; None: not before something happens."""
        if self._in_flight >= (1 if self.down else self._pacing.max_in_flight):
            return None
        instants = [self._later[0][0]] if self._later else []
        if self.down:
            instants = [max(instant, self._probe_at) for instant in instants]
            if self._retry:
                instants.append(self._probe_at)
            if self._ready:
                instants.append(min(self._probe_at, self._probed_at + self._pacing.base))
        return min(instants, default=None)

    def succeeded(self, room: str) -> None:
        """The backend took an event of the room, or refused it for good. Both mean that it is up."""
        known = self._rooms[room]
        self._retrying -= known.attempts > 0
        known.attempts = 0
        self._failed.clear()
        if self.down:
            self._strikes = 0
            self._release_all()

    def release(self, room: str, *, more: bool) -> None:
        """The turn of the room is over; `more`: it has further events."""
        known = self._end_turn(room)
        if more or known.again:
            self._ready.append(room)
        else:
            del self._rooms[room]

    def failed(self, room: str, now: float, jitter: float, retry_after: float | None = None) -> None:
        """The event of the room could not be delivered; `jitter` is 0 to 1."""
        pacing = self._pacing
        known = self._end_turn(room)
        known.attempts += 1
        asked_for = min(retry_after or 0.0, pacing.longest_retry_after)
        known.asked_to_wait = asked_for > 0
        self._postpone(room, now + max(next_delay(known.attempts, jitter, base=pacing.base, cap=pacing.cap), asked_for))
        self._failed.add(room)
        if len(self._failed) >= pacing.down_after:
            self._strikes += 1
            delay = next_delay(self._strikes, jitter, base=pacing.base, cap=min(pacing.probe_cap, pacing.cap))
            self._probe_at = now + max(delay, asked_for)

    def postponed(self, room: str, until: float) -> None:
        """The turn of the room ended for a reason on our side: it is no failure of the backend."""
        self._end_turn(room)
        self._postpone(room, until)

    def nudge(self) -> None:
        """The backend may be up again: try at once."""
        self._probe_at = 0.0
        self._release_all()

    def _end_turn(self, room: str) -> _Room:
        known = self._rooms[room]
        self._in_flight -= 1
        self._retrying -= known.attempts > 0
        known.in_flight = False
        return known

    def _postpone(self, room: str, until: float) -> None:
        self._count += 1
        heapq.heappush(self._later, (until, self._count, room))

    def _release_all(self) -> None:
        """Rooms that wait may be tried again at once, except those that wait because of a `Retry-After`."""
        waiting = [item for item in self._later if self._rooms[item[2]].asked_to_wait]
        self._retry.extend(room for _, _, room in sorted(self._later) if not self._rooms[room].asked_to_wait)
        heapq.heapify(waiting)
        self._later = waiting
