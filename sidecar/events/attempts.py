"""One attempt to deliver one event: something comes of it whatever happens, and it is said."""

from __future__ import annotations

import asyncio
from typing import Protocol

from sidecar.clock import Clock
from sidecar.core.events import Pending
from sidecar.core.model import Event, Failure, Outcome, Rejected, Replied, Unavailable
from sidecar.facts import Asked, Crashed, Emit


class Deliver(Protocol):
    """Tell the backend of an event. Never raises for the network, and takes no longer than so many seconds."""

    async def __call__(self, event: Event, seconds: float) -> Outcome:
        """What the backend made of it."""
        ...


class Attempts:
    """Puts events to the backend, one call at a time for each caller."""

    def __init__(self, deliver: Deliver, clock: Clock, emit: Emit, timeout: float = 10.0) -> None:
        """`timeout`: seconds for one delivery."""
        self._deliver = deliver
        self._clock = clock
        self._emit = emit
        self._timeout = timeout

    async def make(self, room: str, pending: Pending, *, again: bool) -> Outcome | None:
        """Deliver an event once; `again`: it failed before. None: what is on disk is damaged, and was not sent."""
        if pending.damaged:
            return None
        event, begun = pending.event, self._clock.monotonic()
        outcome = await self._outcome(event)
        reason = "" if isinstance(outcome, Replied | Rejected) else outcome.reason
        seconds, name = self._clock.monotonic() - begun, type(outcome).__name__.lower()
        self._emit(Asked(event.endpoint, name, seconds, outcome.status, reason, room, again))
        return outcome

    async def _outcome(self, event: Event) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout + 1.0):
                return await self._deliver(event, self._timeout)
        except TimeoutError:
            return Unavailable("no answer in time", Failure.TIMEOUT)
        except Exception as error:  # noqa: BLE001  (a defect must not end the pump)
            self._emit(Crashed("outbox", error))
            return Unavailable("a defect of the sidecar")
