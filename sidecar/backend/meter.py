"""Measures each call to the backend, for the concurrency limit: how long the backend took, without what was our own."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import assert_never

from sidecar.backend.bulkhead import Bulkhead
from sidecar.backend.lateness import Lateness
from sidecar.clock import Clock
from sidecar.core.concurrency import Change, Sent
from sidecar.core.model import Failure, Misconfigured, Outcome, Rejected, Replied, Unavailable
from sidecar.facts import Emit, LimitChanged

OVERLOADED = frozenset({429, 503})
"""Statuses with which a backend says that it has too much to do."""

TOO_LATE = 0.2
"""Seconds of a call in which this process did nothing: from here on a time-out says nothing about the backend."""


class Meter:
    """One for all calls, as they share the limit."""

    def __init__(self, bulkhead: Bulkhead, clock: Clock, emit: Emit) -> None:
        """The bulkhead's limit is told what comes of each call."""
        self.lateness = Lateness(clock)
        self._bulkhead = bulkhead
        self._clock = clock
        self._emit = emit

    async def measured(self, kind: str, call: Awaitable[Outcome], *, had_time: bool) -> Outcome:
        """Carry out a call, and tell the limit before its place is given back.

        `kind`: of calls that take equally long. `had_time`: a time-out is the backend's, unless this process was late.
        """
        sent = self._bulkhead.limit.send(self._clock.monotonic(), self._bulkhead.held)
        late_before = self.lateness.begin()
        outcome: Outcome | None = None
        try:
            outcome = await call
            return outcome
        finally:
            late = self.lateness.read() - late_before
            self.lateness.end()
            if (change := self._judged(kind, outcome, sent, had_time=had_time and late < TOO_LATE)) is not None:
                self._emit(LimitChanged(change.limit, change.cause))

    def _judged(self, kind: str, outcome: Outcome | None, sent: Sent, *, had_time: bool) -> Change | None:
        limit, now = self._bulkhead.limit, self._clock.monotonic()
        still, waiting = self._bulkhead.held - 1, self._bulkhead.waiting > 0
        match outcome:
            case Replied() | Rejected() | Misconfigured(alive=True) | Unavailable(alive=True):
                took = outcome.took if outcome.took is not None else now - sent.at
                return limit.answered(now, sent, kind, took, still=still, waiting=waiting)
            case None | Misconfigured() | Unavailable(failure=Failure.OURS):
                return limit.says_nothing(now, sent, still=still, waiting=waiting)
            case Unavailable(failure=Failure.TIMEOUT | Failure.UNSENT) if not had_time:
                return limit.says_nothing(now, sent, still=still, waiting=waiting)
            case Unavailable(failure=Failure.USELESS, status=status) if status not in OVERLOADED:
                return limit.says_nothing(now, sent, still=still, waiting=waiting)
            case Unavailable():
                return limit.turned_away(now, sent, still=still, waiting=waiting)
            case _:
                assert_never(outcome)
