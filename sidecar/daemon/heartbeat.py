"""The event loop's own heartbeat: measures how late it is, keeps systemd's watchdog quiet and its STATUS= current.

It beats in the loop that answers Prosody. While that is stuck there is no beat, systemd hears nothing, and starts the
sidecar again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sidecar.clock import Clock, until_next

EVERY = 1.0
"""Seconds between two beats, or a third of what the watchdog allows if that is less."""


class Heartbeat:
    """Beats until cancelled; `lag` is by how many seconds the last beat was late."""

    def __init__(
        self, clock: Clock, watchdog: float | None, status: Callable[[], str], tell: Callable[[str], None]
    ) -> None:
        """`status` is the sentence for STATUS=; `tell` sends a message to systemd."""
        self.lag = 0.0
        self._clock = clock
        self._watched = watchdog is not None
        self._every = EVERY if watchdog is None else min(EVERY, watchdog / 3)
        self._status = status
        self._tell = tell
        self._last_status = ""

    async def run(self) -> None:
        """Beat."""
        while True:
            self.beat()
            pause = until_next(self._every, asyncio.get_running_loop().time())
            due = self._clock.monotonic() + pause
            await asyncio.sleep(pause)
            self.lag = max(0.0, self._clock.monotonic() - due)

    def beat(self) -> None:
        """Say that we live, and what has changed since it was last said."""
        status = self._status()
        words = [f"STATUS={status}"] if status != self._last_status else []
        if self._watched:
            words.append("WATCHDOG=1")
        self._last_status = status
        if words:
            self._tell("\n".join(words))
