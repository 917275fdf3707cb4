"""The guard of one endpoint: every call to the backend passes its breaker, its bulkhead and its retry budget.

permit --(closed)--> wait for a place --> breaker.admit --> ask, perhaps twice --> breaker.succeed | fail
       --(probe)---> breaker.admit, no place needed -------'

It does not decide which question is asked: that is the plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, assert_never

from sidecar.backend.bulkhead import Bulkhead, Grant
from sidecar.clock import Clock
from sidecar.core.breaker import Breaker, BreakerRules, Permit, Ticket
from sidecar.core.model import (
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
)
from sidecar.core.retry import RetryBudget, is_retryable
from sidecar.facts import Asked, BreakerChanged, Emit


class Client(Protocol):
    """The client of the backend, as far as a guard needs it."""

    async def ask(self, query: Query, seconds: float) -> Outcome:
        """One question, one outcome, within so many seconds."""
        ...


LEAST_TIME = 0.2
"""Seconds that a call must have left to be sent: with less it would time out, and count as the backend's failure."""


class Guard:
    """Carries the questions of one endpoint to the backend."""

    def __init__(
        self,
        endpoint: Endpoint,
        backend: Client,
        rules: BreakerRules,
        max_in_flight: int,
        clock: Clock,
        jitter: Callable[[], float],
        emit: Emit,
    ) -> None:
        """Start with a closed breaker and all places free."""
        self.endpoint = endpoint
        self.breaker = Breaker(rules)
        self._bulkhead = Bulkhead(max_in_flight)
        self._backend = backend
        self._budget = RetryBudget()
        self._clock = clock
        self._jitter = jitter
        self._emit = emit
        self._changed = asyncio.Event()

    @property
    def calls_under_way(self) -> int:
        """Calls that hold a place now."""
        return self._bulkhead.held

    @property
    def calls_waiting(self) -> int:
        """Calls that wait for a place."""
        return self._bulkhead.waiting

    def permit(self, now: float, room: str) -> Permit:
        """What a question of this room may do now."""
        return self.breaker.permit(now, room)

    def take_probe(self, now: float, room: str) -> Ticket:
        """Become the probe. Nothing may be awaited between seeing the permit and this."""
        return self.breaker.admit(now, room)

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
        if probe is not None:
            return await self._send(query, until, probe)
        room = query.key.room
        if in_background:
            grant = self._bulkhead.take_spare(room)
        else:
            grant = await self._bulkhead.take(room, until - LEAST_TIME - self._clock.monotonic())
        match grant:
            case Grant.RELEASED:
                return Released()
            case Grant.BUSY:
                return Carried(Unavailable("too many calls are under way", Failure.UNSENT), self._clock.monotonic())
            case Grant.GRANTED:
                return await self._send_in_place(query, until)
            case _:
                assert_never(grant)

    async def _send_in_place(self, query: Query, until: float) -> Carried | Released:
        """Ask with a place of the bulkhead, and give it back. The breaker may have opened during the wait for it."""
        now, room = self._clock.monotonic(), query.key.room
        answered = False
        try:
            if self.permit(now, room) is not Permit.CLOSED:
                return Released()
            carried = await self._send(query, until, self.breaker.admit(now, room))
            answered = isinstance(carried.outcome, Replied | Rejected) or _is_unreadable(carried.outcome)
            return carried
        finally:
            self._bulkhead.give_back(room, answered=answered)

    async def _send(self, query: Query, until: float, ticket: Ticket) -> Carried:
        """Ask, and once more where a retry is worth it. The ticket counts once for the breaker."""
        slow = asyncio.get_running_loop().call_later(
            self.breaker.rules.slow_after, self._failed, ticket, "slow answers"
        )
        try:
            self._budget.first_attempt()
            outcome = await self._attempt(query, until, retry=False)
            if is_retryable(query.key.endpoint.kind, outcome) and self._budget.take():
                outcome = await self._attempt(query, until, retry=True)
        except BaseException:
            self.breaker.abandon(ticket)
            self._wake()
            raise
        finally:
            slow.cancel()
        match outcome:
            case Replied() | Rejected() | Unavailable(failure=Failure.UNREADABLE):
                if self.breaker.succeed(self._clock.monotonic(), ticket):
                    self._emit(BreakerChanged(self.endpoint, "closed", "the probe was answered"))
                    self._wake()
            case Unavailable():
                self._failed(ticket, outcome.reason, outcome.retry_after)
            case Misconfigured():
                self._failed(ticket, outcome.reason)
        return Carried(outcome, ticket.sent_at)

    async def _attempt(self, query: Query, until: float, *, retry: bool) -> Outcome:
        started_at = self._clock.monotonic()
        outcome = await self._backend.ask(query, max(0.0, until - started_at))
        seconds = self._clock.monotonic() - started_at
        reason = "" if isinstance(outcome, Replied | Rejected) else outcome.reason
        kind = "unreadable" if _is_unreadable(outcome) else type(outcome).__name__.lower()
        self._emit(Asked(self.endpoint, kind, seconds, outcome.status, reason, query.key.room, retry))
        return outcome

    def _failed(self, ticket: Ticket, reason: str, retry_after: float | None = None) -> None:
        if self.breaker.fail(self._clock.monotonic(), ticket, self._jitter(), retry_after):
            self._emit(BreakerChanged(self.endpoint, "open", reason))
            self._bulkhead.release_waiting()
            self._wake()

    def configure(self, rules: BreakerRules, max_in_flight: int) -> None:
        """Other limits from now on; what is under way goes on."""
        self.breaker.rules = rules
        self._bulkhead.resize(max_in_flight)

    def try_now(self) -> None:
        """An operator has changed the config: an open breaker may try at once."""
        self.breaker.try_now(self._clock.monotonic())
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _is_unreadable(outcome: Outcome) -> bool:
    """Whether the backend works, and only the config of this room is wrong."""
    return isinstance(outcome, Unavailable) and outcome.failure is Failure.UNREADABLE
