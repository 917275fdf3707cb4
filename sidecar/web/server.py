"""The webhook listener as an aiohttp server.

It is the low-level server and not an application: there are a few paths, so no router is needed, and every response is
ours, also the one to an unknown path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from aiohttp import web

from sidecar.web.connections import Connections
from sidecar.web.link import Links
from sidecar.web.webhooks import Webhooks


class WebhookServer(web.Server):
    """aiohttp's server. What is not HTTP gets a problem as its response, without a copy of what was sent."""

    def __init__(
        self,
        webhooks: Webhooks,
        links: Links,
        watched: Connections,
        keep_alive: float,
    ) -> None:
        """Pass every request to `watched`, then to `links` or `webhooks`. `keep_alive`: seconds between two."""
        super().__init__(self._handle)
        self._webhooks = webhooks
        self._links = links
        self._watched = watched
        self._keep_alive = keep_alive

    def _handle(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        self._watched.note_request(request)
        return self._links.handle(request) if self._links.is_meant(request) else self._webhooks.handle(request)

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"access_log": None, "auto_decompress": False, "keepalive_timeout": self._keep_alive}
        return _Connection(self._webhooks, self, loop=loop, **options)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """A connection has ended. It is not kept until the next sweep: by then there may be thousands."""
        super().connection_lost(handler, exc)
        self._watched.forget(handler)


class _Connection(web.RequestHandler):
    __slots__ = ("_webhooks",)

    def __init__(self, webhooks: Webhooks, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._webhooks = webhooks

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        return self._webhooks.not_http(status, exc)
