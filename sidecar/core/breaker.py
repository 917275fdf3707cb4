"""The circuit breaker of one endpoint: it says whether the backend may be asked, and when to try again.

    closed --(too many fail or are slow)--> open --(open_for)--> half-open --(probe is answered)--> closed
                                             ^------(probe fails or is slow)------'

It has no clock, no timer and no randomness: `now` and `jitter` are arguments. Half-open is not stored: the breaker is
half-open when the time of an open one is over, so no timer is needed.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import StrEnum
from heapq import nlargest


class Permit(StrEnum):
    """What the breaker would let a question do."""

    CLOSED = "closed"
    PROBE_FREE = "half-open, probe free"
    PROBE_OUT = "half-open, probe out"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """Durations in seconds; `open_for` is multiplied by 0.9 to 1.2."""

    failure_ratio: float = 0.5
    minimum_calls: int = 10
    minimum_rooms: int = 3
    window: float = 10.0
    slow_after: float = 2.0
    open_for: float = 3.0
    retry_after_cap: float = 30.0


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """One call that was admitted; it counts once, and only until the breaker opens or closes."""

    room: str
    sent_at: float
    probe: bool


@dataclass(slots=True)
class _Call:
    at: float
    room: str
    failed: bool


HOLD_BACK = 0.5
"""Seconds for which the room of the last failed probe may not send the next one. Without this, one broken room with
much traffic could send every probe, and the breaker would stay open for all rooms."""


class Breaker:
    """The breaker of one endpoint. No method waits."""

    def __init__(self, rules: BreakerRules) -> None:
        """Start closed."""
        self.rules = rules
        self._open_until: float | None = None
        self._wait_until = 0.0
        self._probe: Ticket | None = None
        self._failed_probe_room: str | None = None
        self._outstanding: set[Ticket] = set()
        self._calls: deque[_Call] = deque()
        self._failures = 0
        self._rooms_asked: Counter[str] = Counter()
        self._rooms_failed: Counter[str] = Counter()
        self._in_a_row: Counter[str] = Counter()
        """Failures since the last success, by room."""

    def permit(self, now: float, room: str) -> Permit:
        """What a question of this room may do now."""
        if self._open_until is None:
            return Permit.CLOSED
        if now < self._open_until:
            return Permit.OPEN
        if self._probe_is_out(now):
            return Permit.PROBE_OUT
        if room == self._failed_probe_room and now < self._open_until + HOLD_BACK:
            return Permit.PROBE_OUT
        return Permit.PROBE_FREE

    def admit(self, now: float, room: str) -> Ticket:
        """Admit one call. In half-open it is the probe. The caller has just seen the permit."""
        probe = self._open_until is not None
        ticket = Ticket(room, now, probe)
        self._outstanding.add(ticket)
        if probe:
            self._probe = ticket
        return ticket

    def succeed(self, now: float, ticket: Ticket) -> bool:
        """The call was answered; True when this closes the breaker."""
        if not self._take(ticket):
            return False
        self._wait_until = 0.0
        if ticket.probe:
            self._next_generation()
            self._open_until = None
            self._failed_probe_room = None
            return True
        self._in_a_row.clear()
        self._record(now, ticket.room, failed=False)
        return False

    def fail(self, now: float, ticket: Ticket, jitter: float, retry_after: float | None = None) -> bool:
        """The call failed, or has just become slow; True when this opens the breaker (again).

        `jitter` is 0 to 1; `retry_after` is the backend's `Retry-After`, in seconds.
        """
        if not self._take(ticket):
            return False
        if retry_after is not None:
            self._wait_until = max(self._wait_until, now + min(retry_after, self.rules.retry_after_cap))
        if ticket.probe:
            self._failed_probe_room = ticket.room
            self._open(now, jitter)
            return True
        self._in_a_row[ticket.room] += 1
        self._record(now, ticket.room, failed=True)
        if self._should_open(now):
            self._open(now, jitter)
            return True
        return False

    def abandon(self, ticket: Ticket) -> None:
        """The call was cancelled and does not count; if it was the probe, another one may be sent."""
        self._take(ticket)

    def try_now(self, now: float) -> None:
        """An operator has changed something (a new secret): an open breaker is half-open at once, and calls that were
        sent before do not count."""
        self._next_generation()
        self._wait_until = 0.0
        if self._open_until is not None:
            self._open_until = min(self._open_until, now)
            self._failed_probe_room = None

    def open_until(self) -> float | None:
        """The instant at which a probe is due; None while closed."""
        return self._open_until

    def _take(self, ticket: Ticket) -> bool:
        """Use up a ticket: False when it has counted already, or belongs to an earlier generation."""
        if ticket not in self._outstanding:
            return False
        self._outstanding.discard(ticket)
        if ticket is self._probe:
            self._probe = None
        return True

    def _probe_is_out(self, now: float) -> bool:
        # A probe has a lease: if it is never reported, another one may be sent when this one would have been slow.
        return self._probe is not None and now < self._probe.sent_at + self.rules.slow_after

    def _next_generation(self) -> None:
        self._probe = None
        self._outstanding.clear()  # calls of an earlier generation do not count
        self._calls.clear()
        self._failures = 0
        for counter in (self._rooms_asked, self._rooms_failed, self._in_a_row):
            counter.clear()

    def _open(self, now: float, jitter: float) -> None:
        self._next_generation()
        self._open_until = max(now + self.rules.open_for * (0.9 + 0.3 * jitter), self._wait_until)

    def _record(self, now: float, room: str, *, failed: bool) -> None:
        self._forget_before(now - self.rules.window)
        self._calls.append(_Call(now, room, failed))
        self._rooms_asked[room] += 1
        if failed:
            self._failures += 1
            self._rooms_failed[room] += 1

    def _forget_before(self, horizon: float) -> None:
        while self._calls and self._calls[0].at < horizon:
            call = self._calls.popleft()
            _decrement(self._rooms_asked, call.room)
            if call.failed:
                self._failures -= 1
                _decrement(self._rooms_failed, call.room)

    def _should_open(self, now: float) -> bool:
        rules = self.rules
        return (self._in_a_row.total() >= rules.minimum_calls and self._are_enough(self._in_a_row, now)) or (
            len(self._calls) >= rules.minimum_calls
            and self._failures >= rules.failure_ratio * len(self._calls)
            and self._are_enough(self._rooms_failed, now)
            and self._fails_without_worst_rooms()
        )

    def _are_enough(self, failing: Counter[str], now: float) -> bool:
        """Whether `minimum_rooms` fail, or all rooms that have asked recently."""
        recently = now - self.rules.window
        rooms_asked = self._rooms_asked.keys() | {call.room for call in self._outstanding if call.sent_at >= recently}
        return len(failing) >= min(self.rules.minimum_rooms, len(rooms_asked))

    def _fails_without_worst_rooms(self) -> bool:
        """Whether the failure ratio also holds without the worst `minimum_rooms` - 1 rooms. So one broken room and
        single failures in two others do not open the breaker."""
        failed, asked = self._rooms_failed, self._rooms_asked
        worst = nlargest(self.rules.minimum_rooms - 1, failed, key=lambda room: (failed[room], asked[room]))
        calls = len(self._calls) - sum(asked[room] for room in worst)
        return self._failures - sum(failed[room] for room in worst) >= self.rules.failure_ratio * calls


def _decrement(counter: Counter[str], room: str) -> None:
    counter[room] -= 1
    if counter[room] <= 0:
        del counter[room]
