"""The guard of one endpoint: every call to the backend passes its breaker, its bulkhead and its retry budget.

permit --(closed)--> wait for a place --> breaker.admit --> ask, perhaps twice --> breaker.succeed | fail
       --(probe)---> breaker.admit, no place needed -------'

It does not decide which question is asked: that is the plan. The bulkhead and its limit are shared with the other guard
and the outbox.

Only what the backend did counts against it: not a wait for a place, not a time-out of a call that was sent late, not a
missing file descriptor, and no second in which this process was late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, assert_never

from sidecar.backend.bulkhead import Bulkhead, Grant
from sidecar.backend.lateness import Lateness
from sidecar.backend.meter import TOO_LATE, Meter
from sidecar.clock import Clock
from sidecar.core.breaker import Breaker, BreakerRules, Permit, Ticket
from sidecar.core.model import (
    NOBODY,
    Asker,
    Carried,
    Endpoint,
    Failure,
    Misconfigured,
    Outcome,
    Query,
    Rejected,
    Released,
    Replied,
    Unavailable,
    Verdict,
)
from sidecar.core.retry import RetryBudget, is_retryable
from sidecar.facts import Asked, BreakerChanged, Emit


class Client(Protocol):
    """The client of the backend, as far as a guard needs it."""

    async def ask(self, query: Query, seconds: float) -> Outcome:
        """One question, one outcome, within so many seconds."""
        ...


LEAST_TIME = 0.2
"""Seconds that a call must have left to be sent: with less it would time out."""

FAIR_SHARE = 0.9
"""A time-out counts against the backend if it had this share of the time that there was before the wait for a place."""

EXCUSED_FROM = 0.05
"""Seconds of lateness from which on a slow call gets as much time again."""


class Guard:
    """Carries the questions of one endpoint to the backend."""

    def __init__(
        self,
        endpoint: Endpoint,
        backend: Client,
        rules: BreakerRules,
        bulkhead: Bulkhead,
        meter: Meter,
        clock: Clock,
        jitter: Callable[[], float],
        emit: Emit,
    ) -> None:
        """Start with a closed breaker."""
        self.endpoint = endpoint
        self.breaker = Breaker(rules)
        self.calls_under_way = 0
        """Calls that hold a place now."""
        self.calls_waiting = 0
        """Calls that wait for a place."""
        self._bulkhead = bulkhead
        self._meter = meter
        self._backend = backend
        self._budget = RetryBudget()
        self._clock = clock
        self._jitter = jitter
        self._emit = emit
        self._changed = asyncio.Event()

    def permit(self, now: float, room: str, asker: Asker = NOBODY) -> Permit:
        """What a question about this room may do now, if this one asks."""
        return self.breaker.permit(now, room, asker)

    def take_probe(self, now: float, room: str, asker: Asker = NOBODY) -> Ticket:
        """Become the probe. Nothing may be awaited between seeing the permit and this."""
        return self.breaker.admit(now, room, asker)

    async def breaker_changes(self, seconds: float) -> None:
        """Wait until the breaker opens, closes or frees its probe; at most so long."""
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def carry(
        self, query: Query, until: float, probe: Ticket | None, *, in_background: bool = False
    ) -> Carried | Released:
        """Get one question answered by the instant `until`. One `in_background` takes a spare place, or is not sent."""
        begun = self._clock.monotonic()
        if probe is not None:
            return await self._send(query, until, probe, begun)
        match await self._place(query.key.room, until - LEAST_TIME - begun, in_background=in_background):
            case Grant.RELEASED:
                return Released()
            case Grant.BUSY:
                return Carried(Unavailable("too many calls are under way", Failure.OURS), self._clock.monotonic())
            case Grant.GRANTED:
                return await self._send_in_place(query, until, begun)
            case grant:
                assert_never(grant)

    async def _place(self, room: str, seconds: float, *, in_background: bool) -> Grant:
        if in_background:
            return self._bulkhead.take_spare(room)
        self.calls_waiting += 1
        try:
            return await self._bulkhead.take(room, seconds, self.endpoint)
        finally:
            self.calls_waiting -= 1

    async def _send_in_place(self, query: Query, until: float, begun: float) -> Carried | Released:
        """Ask with a place of the bulkhead, and give it back. The breaker may have opened during the wait for it."""
        now, room = self._clock.monotonic(), query.key.room
        answered = False
        self.calls_under_way += 1
        try:
            if self.permit(now, room, query.asker) is not Permit.CLOSED:
                return Released()
            carried = await self._send(query, until, self.breaker.admit(now, room, query.asker), begun)
            answered = isinstance(carried.outcome, Replied | Rejected) or _is_unreadable(carried.outcome)
            return carried
        finally:
            self.calls_under_way -= 1
            self._bulkhead.give_back(room, answered=answered)

    async def _send(self, query: Query, until: float, ticket: Ticket, begun: float) -> Carried:
        """Ask, and once more where a retry is worth it. The ticket counts once for the breaker."""
        slow_after, lateness = self.breaker.rules.slow_after, self._meter.lateness
        slow = _SlowTimer(lateness, slow_after, lambda: self._failed(ticket, "slow answers", slow=True))
        had_time = until - self._clock.monotonic() >= FAIR_SHARE * (until - begun)
        try:
            self._budget.first_attempt()
            outcome = await self._attempt(query, until, had_time=had_time, retry=False)
            if is_retryable(query.key.endpoint.kind, outcome) and self._budget.take():
                outcome = await self._attempt(query, until, had_time=had_time, retry=True)
            late = slow.late()
        except BaseException:
            self._abandoned(ticket)
            raise
        finally:
            slow.stop()
        self._count(ticket, outcome, had_time=had_time and late < TOO_LATE)
        return Carried(outcome, ticket.sent_at)

    def _count(self, ticket: Ticket, outcome: Outcome, *, had_time: bool) -> None:
        """Tell the breaker. `had_time`: a time-out is the backend's."""
        match outcome:
            case Replied(verdict=Verdict.ALLOW | Verdict.CONFIG):
                self._succeeded(ticket, well=True)
            case Replied() | Rejected() | Misconfigured(alive=True) | Unavailable(alive=True):
                self._succeeded(ticket, well=False)
            case Unavailable(failure=Failure.OURS):
                self._abandoned(ticket)
            case Unavailable(failure=Failure.TIMEOUT | Failure.UNSENT) if not had_time:
                self._abandoned(ticket)
            case Unavailable():
                whole = outcome.failure is Failure.UNSENT
                self._failed(ticket, outcome.reason, outcome.retry_after, whole=whole)
            case Misconfigured():
                self._failed(ticket, outcome.reason, whole=outcome.status is None)
            case _:
                assert_never(outcome)

    async def _attempt(self, query: Query, until: float, *, had_time: bool, retry: bool) -> Outcome:
        started_at = self._clock.monotonic()
        call = self._backend.ask(query, max(0.0, until - started_at))
        outcome = await self._meter.measured(self.endpoint, call, had_time=had_time)
        seconds = self._clock.monotonic() - started_at
        reason = outcome.remark if isinstance(outcome, Replied | Rejected) else outcome.reason
        kind = "unreadable" if _is_unreadable(outcome) else type(outcome).__name__.lower()
        self._emit(Asked(self.endpoint, kind, seconds, outcome.status, reason, query.key.room, retry))
        return outcome

    def _succeeded(self, ticket: Ticket, *, well: bool) -> None:
        if self.breaker.succeed(self._clock.monotonic(), ticket, well=well):
            self._emit(BreakerChanged(self.endpoint, "closed", "the backend answered"))
            self._wake()

    def _failed(
        self, ticket: Ticket, reason: str, retry_after: float | None = None, *, whole: bool = False, slow: bool = False
    ) -> None:
        now, jitter = self._clock.monotonic(), self._jitter()
        if self.breaker.fail(now, ticket, jitter, retry_after, whole=whole, slow=slow):
            state = "open for some users" if self.breaker.is_open_for_some else "open"
            self._emit(BreakerChanged(self.endpoint, state, reason))
            self._bulkhead.release_waiting(self.endpoint)
            self._wake()
        elif ticket.probe:
            self._wake()

    def _abandoned(self, ticket: Ticket) -> None:
        self.breaker.abandon(ticket)
        if ticket.probe:
            self._wake()

    def configure(self, rules: BreakerRules) -> None:
        """Other rules from now on; what is under way goes on."""
        self.breaker.rules = rules

    def try_now(self) -> None:
        """An operator has changed the config: an open breaker may try at once."""
        self.breaker.try_now(self._clock.monotonic())
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class _SlowTimer:
    """Rings when a call has taken so many seconds, without those in which this process was late."""

    def __init__(self, lateness: Lateness, seconds: float, ring: Callable[[], None]) -> None:
        self._lateness = lateness
        self._begun = lateness.begin()
        self._excused = 0.0
        self._ring = ring
        self._timer = asyncio.get_running_loop().call_later(seconds, self._due)

    def late(self) -> float:
        """Seconds so far in which this process was late."""
        return self._lateness.read() - self._begun

    def stop(self) -> None:
        """The call has ended."""
        self._timer.cancel()
        self._lateness.end()

    def _due(self) -> None:
        more = self.late() - self._excused
        if more < EXCUSED_FROM:
            self._ring()
            return
        self._excused += more
        self._timer = asyncio.get_running_loop().call_later(more, self._due)


def _is_unreadable(outcome: Outcome) -> bool:
    """Whether the backend works, and only the config of this room is wrong."""
    return isinstance(outcome, Unavailable) and outcome.failure is Failure.UNREADABLE
