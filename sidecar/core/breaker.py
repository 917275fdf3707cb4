"""The circuit breaker of one endpoint: it says whether the backend may be asked, and when to try again.

    closed --(too many fail or are slow)--> open --(open_for)--> half-open --(probe is answered)--> closed
                                             ^------(probe fails or is slow)------'

It has no clock, no timer and no randomness: `now` and `jitter` are arguments. Half-open is not stored: the breaker is
half-open when the time of an open one is over, so no timer is needed.

Failures count by room, so that one broken room stops nothing for the others. Anybody can make up room names, so all
rooms that the backend has never answered well are *strangers*, and count as one room together. A failure that no name
can cause, such as a refused connection, counts for its own room.

If nobody gets an answer, failures of strangers alone are enough: several rooms, each asked about by somebody else.

Anybody can also choose a display name, and a name can be what the backend cannot read. So failures count by who asks
too, and all guests are one asker, because one person can be several guests. If too few people fail, the breaker opens
for them alone, and the backend is still asked about everybody else.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from heapq import nlargest

from sidecar.core.model import NOBODY, Asker


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
    asker: Asker = NOBODY


@dataclass(slots=True)
class _Call:
    at: float
    room: str
    asker: str
    failed: bool


class _Tally:
    """By name of a room or of an asker: the calls of the window, and the failures since the last success."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.in_a_row: Counter[str] = Counter()

    def add(self, name: str, *, failed: bool) -> None:
        self.asked[name] += 1
        if failed:
            self.failed[name] += 1

    def forget(self, name: str, *, failed: bool) -> None:
        _decrement(self.asked, name)
        if failed:
            _decrement(self.failed, name)

    def clear(self) -> None:
        for counter in (self.asked, self.failed, self.in_a_row):
            counter.clear()

    def fails_without_worst(self, most: int, ratio: float) -> bool:
        """Whether this share of the calls has failed also without those of the worst `most` names."""
        worst = nlargest(most, self.failed, key=lambda name: (self.failed[name], self.asked[name]))
        calls = self.asked.total() - sum(self.asked[name] for name in worst)
        return self.failed.total() - sum(self.failed[name] for name in worst) >= ratio * calls


class _Witnesses:
    """Strangers whose calls failed: rooms and askers that say the same independently of each other."""

    def __init__(self) -> None:
        self._rooms: set[str] = set()
        self.askers: set[str] = set()

    def __len__(self) -> int:
        return len(self._rooms)

    def hear(self, room: str, asker: str, most: int) -> None:
        """A room counts once, and so does an asker; no more than so many are remembered."""
        if room not in self._rooms and asker not in self.askers and len(self) < most:
            self._rooms.add(room)
            self.askers.add(asker)

    def forget(self) -> None:
        self._rooms.clear()
        self.askers.clear()


GUESTS = ""
"""The one asker as which all guests count. No asker with a name is called so."""

NO_ASKER = "\0"
"""The asker of calls that nobody is known to have caused: of an unknown asker, or that failed whatever was asked."""

HOLD_BACK = 0.5
"""Seconds for which the room of the last failed probe may not send the next one. Without this, one broken room with
much traffic could send every probe, and the breaker would stay open for all rooms."""

STRANGERS = ""
"""The one room as which all rooms count that the backend has never answered well. No real room has an empty name."""

QUIET = 2.0
"""Seconds without a success before failures of strangers alone can open the breaker, and before calls count that have
only not been answered yet."""

REMEMBERED_ROOMS = 10_000
"""Rooms answered well that are remembered; the one that was answered longest ago is forgotten first."""


class Breaker:
    """The breaker of one endpoint. No method waits."""

    def __init__(self, rules: BreakerRules, answered_well: Iterable[str] = ()) -> None:
        """Start closed. `answered_well`: rooms that the backend has answered well before."""
        self.rules = rules
        self._answered_well: OrderedDict[str, None] = OrderedDict.fromkeys(answered_well)
        self._succeeded_at = -math.inf
        self._strangers = _Witnesses()
        """Strangers whose calls failed since the last success, or, while open, whose probes failed."""
        self._guests = _Witnesses()
        """The same, with each guest as an asker of its own."""
        self._failing: set[str] = set()
        """Names of askers whose calls failed since the last success, each guest for itself."""
        self._open_for: set[str] | None = None
        """While open: the askers for whom it is; None: for all."""
        self._open_until: float | None = None
        self._wait_until = 0.0
        self._probe: Ticket | None = None
        self._held_back: dict[str, float] = {}
        """Rooms and askers that may not send a probe before an instant: their last one failed."""
        self._reopened_by: set[str] = set()
        """Askers whose failed probe has opened it again since it was closed. The next one does not."""
        self._outstanding: set[Ticket] = set()
        self._calls: deque[_Call] = deque()
        self._rooms = _Tally()
        self._askers = _Tally()

    def permit(self, now: float, room: str, asker: Asker = NOBODY) -> Permit:
        """What a question about this room may do now, if this one asks."""
        if self._open_until is None or self._is_let_through(room, asker):
            return Permit.CLOSED
        if now < self._open_until:
            return Permit.OPEN
        if self._probe_is_out(now) or self._is_held_back(now, room, asker):
            return Permit.PROBE_OUT
        return Permit.PROBE_FREE

    def admit(self, now: float, room: str, asker: Asker = NOBODY) -> Ticket:
        """Admit one call. In half-open it is the probe. The caller has just seen the permit."""
        probe = self._open_until is not None and not self._is_let_through(room, asker)
        ticket = Ticket(room, now, probe, asker)
        self._outstanding.add(ticket)
        if probe:
            self._probe = ticket
        return ticket

    def succeed(self, now: float, ticket: Ticket, *, well: bool = True) -> bool:
        """The call was answered; True when this closes the breaker.

        `well`: with an allow or a config. Any made-up name gets another answer, so that does not make the room known.
        """
        if well:
            self._remember(ticket.room)
        if not self._take(ticket):
            return False
        self._wait_until = 0.0
        self._succeeded_at = now
        if self._open_until is not None:
            self._next_generation()
            self._open_until = self._open_for = None
            self._held_back.clear()
            self._reopened_by.clear()
            return True
        self._rooms.in_a_row.clear()
        self._askers.in_a_row.clear()
        self._forget_strangers()
        self._record(now, self._counted_as(ticket.room), _asker_of(ticket), failed=False)
        return False

    def fail(
        self,
        now: float,
        ticket: Ticket,
        jitter: float,
        retry_after: float | None = None,
        *,
        whole: bool = False,
        slow: bool = False,
    ) -> bool:
        """The call failed, or has just become slow (`slow`); True when this opens the breaker (again).

        `jitter` is 0 to 1; `retry_after` is the backend's `Retry-After`, in seconds. `whole`: the backend as a whole
        failed, as nothing in a request can cause this.
        """
        if not self._take(ticket):
            return False
        if retry_after is not None:
            self._wait_until = max(self._wait_until, now + min(retry_after, self.rules.retry_after_cap))
        counted_as = ticket.room if whole else self._counted_as(ticket.room)
        asker = NO_ASKER if whole else _asker_of(ticket)
        if counted_as == STRANGERS or asker != NO_ASKER:
            self._hear(ticket, is_witness=counted_as == STRANGERS or ticket.probe)
        if ticket.probe:
            is_few = asker != NO_ASKER and (self.is_open_for_some or asker in self._reopened_by)
            is_doubtful = counted_as == STRANGERS or is_few
            if len(self._reopened_by) < REMEMBERED_ROOMS:
                self._reopened_by.add(asker)
            return self._fail_probe(now, ticket, jitter, is_doubtful=is_doubtful)
        self._rooms.in_a_row[counted_as] += 1
        self._askers.in_a_row[asker] += 1
        self._record(now, counted_as, asker, failed=True)
        is_run = self._is_run(now, slow=slow)
        if self._should_open(now, is_run=is_run):
            self._open(now, jitter)
            return True
        if is_run and self._open_until is None and self._is_open_for_them(now):
            askers = set(self._failing)
            self._open(now, jitter)
            self._open_for = askers
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
            self._held_back.clear()
            self._reopened_by.clear()

    @property
    def is_open_for_some(self) -> bool:
        """Whether it is open, and only for some users."""
        return self._open_for is not None

    def open_until(self) -> float | None:
        """The instant at which a probe is due; None while closed."""
        return self._open_until

    def _fail_probe(self, now: float, ticket: Ticket, jitter: float, *, is_doubtful: bool) -> bool:
        """Open again; or stay half-open, if too few say so, and may have caused it. Otherwise one guest with made-up
        names could send every probe, and keep the breaker open."""
        if is_doubtful and len(self._strangers) < self.rules.minimum_rooms:
            self._held_back[_name_of(ticket)] = now + self._pause(jitter)
            return False
        self._held_back.clear()
        self._open(now, jitter)
        assert self._open_until is not None
        known = ticket.room in self._answered_well
        self._held_back[ticket.room if known else _name_of(ticket)] = self._open_until + HOLD_BACK
        return True

    def _is_held_back(self, now: float, room: str, asker: Asker) -> bool:
        return any(now < self._held_back.get(name, -math.inf) for name in {room, asker.name or room})

    def _is_let_through(self, room: str, asker: Asker) -> bool:
        """Whether this one may ask though the breaker is open, as it is open only for some users."""
        return self._open_for is not None and (asker.name or room) not in self._open_for

    def _hear(self, ticket: Ticket, *, is_witness: bool) -> None:
        name = _name_of(ticket)
        if is_witness:
            self._strangers.hear(ticket.room, GUESTS if ticket.asker.guest else name, self.rules.minimum_rooms)
            self._guests.hear(ticket.room, name, self.rules.minimum_rooms)
        for failing in (self._failing, self._open_for):
            if failing is not None and len(failing) < REMEMBERED_ROOMS:
                failing.add(name)

    def _forget_strangers(self) -> None:
        self._strangers.forget()
        self._guests.forget()
        self._failing.clear()

    def _counted_as(self, room: str) -> str:
        return room if room in self._answered_well else STRANGERS

    def _remember(self, room: str) -> None:
        self._answered_well[room] = None
        self._answered_well.move_to_end(room)
        if len(self._answered_well) > REMEMBERED_ROOMS:
            self._answered_well.popitem(last=False)

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
        self._forget_strangers()
        self._rooms.clear()
        self._askers.clear()

    def _open(self, now: float, jitter: float) -> None:
        self._next_generation()
        self._open_until = max(now + self._pause(jitter), self._wait_until)
        self._open_for = None

    def _pause(self, jitter: float) -> float:
        return self.rules.open_for * (0.9 + 0.3 * jitter)

    def _record(self, now: float, room: str, asker: str, *, failed: bool) -> None:
        self._forget_before(now - self.rules.window)
        self._calls.append(_Call(now, room, asker, failed))
        self._rooms.add(room, failed=failed)
        self._askers.add(asker, failed=failed)

    def _forget_before(self, horizon: float) -> None:
        while self._calls and self._calls[0].at < horizon:
            call = self._calls.popleft()
            self._rooms.forget(call.room, failed=call.failed)
            self._askers.forget(call.asker, failed=call.failed)

    def _should_open(self, now: float, *, is_run: bool) -> bool:
        rules = self.rules
        rooms, askers = self._rooms, self._askers
        return (is_run and self._are_enough(rooms.in_a_row, now) and self._are_several(askers.in_a_row)) or (
            len(self._calls) >= rules.minimum_calls
            and rooms.failed.total() >= rules.failure_ratio * len(self._calls)
            and self._are_enough(rooms.failed, now)
            and self._are_several(askers.failed)
            # So one broken room and single failures in two others do not open it, and nor does one user who fails.
            and rooms.fails_without_worst(rules.minimum_rooms - 1, rules.failure_ratio)
            and self._is_ratio_of_several(askers)
        )

    def _is_run(self, now: float, *, slow: bool) -> bool:
        """Whether `minimum_calls` failed in a row. If one has just become slow, and nobody gets an answer, those that
        have taken half as long count too: the first few slow calls are enough to notice a backend that hangs."""
        missing = self.rules.minimum_calls - self._rooms.in_a_row.total()
        if missing <= 0 or not slow or not self._is_quiet(now):
            return missing <= 0
        horizon = now - self.rules.slow_after / 2
        return sum(call.sent_at <= horizon for call in self._outstanding) >= missing

    def _is_quiet(self, now: float) -> bool:
        return now - self._succeeded_at >= QUIET

    def _are_enough(self, failing: Counter[str], now: float) -> bool:
        """Whether `minimum_rooms` fail, or all rooms that have asked recently."""
        if len(failing) >= self.rules.minimum_rooms:
            return True
        if STRANGERS in failing:
            return self._are_believed(self._strangers, now)
        recently = now - self.rules.window
        outstanding = {self._counted_as(call.room) for call in self._outstanding if call.sent_at >= recently}
        return len(failing) >= len(self._rooms.asked.keys() | outstanding)

    def _are_believed(self, strangers: _Witnesses, now: float) -> bool:
        """Whether it is the backend that fails, and not somebody who makes up names."""
        return len(strangers) >= self.rules.minimum_rooms and self._is_quiet(now)

    def _are_several(self, askers: Counter[str]) -> bool:
        """Whether it is more than what a few people do."""
        return NO_ASKER in askers or len(askers) >= self.rules.minimum_rooms

    def _is_ratio_of_several(self, askers: _Tally) -> bool:
        rules = self.rules
        return NO_ASKER in askers.failed or askers.fails_without_worst(rules.minimum_rooms - 1, rules.failure_ratio)

    def _is_open_for_them(self, now: float) -> bool:
        """Whether it is to open for those alone who fail: they are too few, but fail in rooms that are enough."""
        return self._are_enough(self._rooms.in_a_row, now) or self._are_believed(self._guests, now)


def _decrement(counter: Counter[str], room: str) -> None:
    counter[room] -= 1
    if counter[room] <= 0:
        del counter[room]


def _name_of(ticket: Ticket) -> str:
    return ticket.asker.name or ticket.room


def _asker_of(ticket: Ticket) -> str:
    """As whom a call counts."""
    if ticket.asker.guest:
        return GUESTS
    return ticket.asker.name or NO_ASKER
