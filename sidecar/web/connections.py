"""The connections of a listener: slow and silent clients do not keep one, and a stop drops nobody who is about to ask.

A connection on which nobody has asked anything is either about to ask, which the end of a listener waits for, or only
there to take up room, which ends it after a few seconds: the library times out what comes between two requests, but
not the first.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.clock import Clock

HEAD_SECONDS = 5.0
"""Seconds in which the head of the first request of a connection must have arrived."""

KEEP_ALIVE = 75.0
"""Seconds a connection may be idle between two requests; also the most for the head of a later one."""

LAST_WORDS = 1.0
"""Seconds for which a listener that closes waits for those who are connected but have not asked yet."""

MOMENT = 0.02


class Connections:
    """Knows which connections of one listener have asked something."""

    def __init__(self, clock: Clock) -> None:
        """Nobody is there yet."""
        self._clock = clock
        self._server: web.Server | None = None
        self._asked: set[object] = set()
        self._silent_since: dict[web.RequestHandler, float] = {}

    def note_request(self, request: web.BaseRequest) -> None:
        """To be called for every request."""
        self._asked.add(request.protocol)

    def watch(self, server: web.Server | None) -> None:
        """The server whose connections these are."""
        self._server = server

    def sweep(self) -> int:
        """End the connections that have been silent for too long; returns how many are silent still."""
        now = self._clock.monotonic()
        connected = set(self._server.connections) if self._server is not None else set()
        self._asked &= connected
        self._silent_since = {each: self._silent_since.get(each, now) for each in connected - self._asked}
        for each, since in self._silent_since.items():
            if now - since > HEAD_SECONDS:
                each.force_close()
        return len(self._silent_since)

    async def settle(self) -> None:
        """Wait for those who are about to ask, at most `LAST_WORDS`."""
        for _ in range(round(LAST_WORDS / MOMENT)):
            await asyncio.sleep(MOMENT)  # first of all for those whom the kernel has let in but the loop not met yet
            if not self.sweep():
                return


def note_requests(connections: Connections) -> Middleware:
    """The same for a listener that is an application."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        connections.note_request(request)
        return await handler(request)

    return note
