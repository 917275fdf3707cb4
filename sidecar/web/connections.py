"""The connections of a listener that have sent no request yet.

Such a connection is about to send one, or it is idle and only uses memory. So it is closed after a few seconds (aiohttp
has a time-out between two requests, but none before the first), and a listener that stops waits a moment for the
request.
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

STOP_WAIT = 1.0
"""Seconds for which a listener that stops waits for the first requests of its connections."""

POLL_EVERY = 0.02


class Connections:
    """Knows which connections of one listener have sent a request."""

    def __init__(self, clock: Clock) -> None:
        """No connections yet."""
        self._clock = clock
        self._server: web.Server | None = None
        self._used: set[object] = set()
        self._silent_since: dict[web.RequestHandler, float] = {}

    def note_request(self, request: web.BaseRequest) -> None:
        """Must be called for every request."""
        self._used.add(request.protocol)

    def forget(self, connection: web.RequestHandler) -> None:
        """A connection has ended. Where nobody calls this, the next sweep finds out."""
        self._used.discard(connection)

    def watch(self, server: web.Server | None) -> None:
        """Set the server whose connections these are."""
        self._server = server

    def sweep(self) -> int:
        """Close the connections that have been silent for too long; returns how many are silent."""
        now = self._clock.monotonic()
        connections = self._server.connections if self._server is not None else ()
        connected = {each for each in connections if each.transport is not None}
        self._used &= connected
        self._silent_since = {each: self._silent_since.get(each, now) for each in connected - self._used}
        for each, since in self._silent_since.items():
            if now - since > HEAD_SECONDS:
                each.force_close()
        return len(self._silent_since)

    async def settle(self) -> None:
        """Wait until no connection is silent, at most `STOP_WAIT`."""
        for _ in range(round(STOP_WAIT / POLL_EVERY)):
            await asyncio.sleep(POLL_EVERY)  # before the first sweep too: the kernel may have accepted one just now
            if not self.sweep():
                return


def note_requests(connections: Connections) -> Middleware:
    """`note_request` as a middleware, for a listener that is an application."""

    @web.middleware
    async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
        connections.note_request(request)
        return await handler(request)

    return note
