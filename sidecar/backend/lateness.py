"""How late this process is: seconds in which its event loop could do nothing for the calls that are under way.

A process that is overloaded, stopped or swapped out reads an answer long after it has arrived. That time is no fault of
the backend. A timer that is due every 20 ms while calls are under way shows it.
"""

from __future__ import annotations

import asyncio

from sidecar.clock import Clock

EVERY = 0.02

INACCURACY = 0.002
"""Seconds by which a timer may be late on an idle machine."""


class Lateness:
    """The sum of all delays of the timer. The difference between two readings is what a call lost in between."""

    def __init__(self, clock: Clock) -> None:
        """Nothing is measured until a call begins."""
        self._clock = clock
        self._total = 0.0
        self._calls = 0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> float:
        """A call begins: the reading."""
        self._calls += 1
        if self._timer is None:
            self._wait()
        return self.read()

    def end(self) -> None:
        """A call has ended."""
        self._calls -= 1
        if not self._calls and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def read(self) -> float:
        """Seconds so far, with the delay of the timer that is due now."""
        overdue = self._clock.monotonic() - self._due if self._timer is not None else 0.0
        return self._total + (overdue if overdue > INACCURACY else 0.0)

    def _wait(self) -> None:
        self._due = self._clock.monotonic() + EVERY
        self._timer = asyncio.get_running_loop().call_later(EVERY, self._tick)

    def _tick(self) -> None:
        self._total = self.read()
        self._wait()
