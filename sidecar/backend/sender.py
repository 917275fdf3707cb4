"""Sends the events of the outbox, within the limit that they share with the joins."""

from __future__ import annotations

import asyncio
from typing import Protocol

from sidecar.backend.bulkhead import Bulkhead
from sidecar.backend.meter import Meter
from sidecar.clock import Clock
from sidecar.core.model import Event, Failure, Kind, Outcome, Unavailable


class Client(Protocol):
    """The client of the backend, as far as events need it."""

    async def deliver(self, event: Event, seconds: float) -> Outcome:
        """One event, one outcome, within so many seconds."""
        ...


class Sender:
    """Takes a place for each event."""

    def __init__(self, backend: Client, bulkhead: Bulkhead, meter: Meter, clock: Clock) -> None:
        """The bulkhead is the one of the joins."""
        self._backend = backend
        self._bulkhead = bulkhead
        self._meter = meter
        self._clock = clock

    async def __call__(self, event: Event, seconds: float) -> Outcome:
        """Send one event. At most half of the time is for the wait for a place."""
        begun = self._clock.monotonic()
        try:
            async with asyncio.timeout(seconds / 2):
                await self._bulkhead.take_for_event()
        except TimeoutError:
            return Unavailable("too many calls are under way", Failure.OURS)
        try:
            call = self._backend.deliver(event, seconds - (self._clock.monotonic() - begun))
            return await self._meter.measured(Kind.EVENT, call, had_time=True)
        finally:
            self._bulkhead.give_back_event()
