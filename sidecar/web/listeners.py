"""Listeners: on the socket that systemd passed or one of our own, closed without dropping anybody.

A connection on which nobody has asked anything is either about to ask, which the end of a listener waits for, or only
there to take up room, which ends it after a few seconds: the library times out what comes between two requests, but
not the first.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.clock import Clock
from sidecar.config.lint import loops
from sidecar.config.models import Admin, Listen
from sidecar.errors import StartError
from sidecar.facts import Emit, Notice

BACKLOG = 1024
"""Connections that may wait to be accepted."""

HEAD_SECONDS = 5.0
"""Seconds in which the head of the first request of a connection must have arrived."""

KEEP_ALIVE = 75.0
"""Seconds a connection may be idle between two requests; also the most for the head of a later one."""

LAST_WORDS = 1.0
"""Seconds for which a listener that closes waits for those who are connected but have not asked yet."""

MOMENT = 0.02

PASSED_AS = {"listen": "webhook", "admin": "admin"}
"""Section of the config -> FileDescriptorName= of the socket that systemd may pass for it."""


class Door:
    """Knows which connections of one listener have asked something."""

    def __init__(self, clock: Clock) -> None:
        """Nobody is there yet."""
        self._clock = clock
        self._server: web.Server | None = None
        self._asked: set[object] = set()
        self._silent_since: dict[web.RequestHandler, float] = {}

    def asks(self, request: web.BaseRequest) -> None:
        """To be called for every request."""
        self._asked.add(request.protocol)

    def watch(self, server: web.Server | None) -> None:
        """The listener that this is the door of."""
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


def through(door: Door) -> Middleware:
    """The door as a middleware, for a listener that is an application."""

    @web.middleware
    async def pass_through(request: web.Request, handler: Handler) -> web.StreamResponse:
        door.asks(request)
        return await handler(request)

    return pass_through


def known(token: Callable[[], str | None]) -> Middleware:
    """Only those who send the token come in, if there is one: as a bearer's, or as the password of a browser."""

    @web.middleware
    async def let_in(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = token()
        if wanted is None or request.path == "/livez":
            return await handler(request)
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given).decode().partition(":")[2]
            except ValueError:
                given = ""
        if not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
            challenge = {"WWW-Authenticate": 'Basic realm="prosody-sidecar", charset="UTF-8"'}
            detail = "send the token of admin.token_file as `Authorization: Bearer ...`, or as a password"
            return web.json_response({"status": 401, "detail": detail}, status=401, headers=challenge)
        return await handler(request)

    return let_in


async def listen(
    stack: AsyncExitStack,
    runner: web.BaseRunner,
    section: str,
    settings: Listen | Admin,
    passed: Mapping[str, socket.socket],
    door: Door,
    emit: Emit,
) -> None:
    """Serve until the stack is unwound. Raises StartError when the port cannot be had."""
    await runner.setup()
    stack.push_async_callback(_close, runner, door)
    door.watch(runner.server)
    ours = passed.get(PASSED_AS[section])
    if ours is not None:
        host, port = ours.getsockname()[:2]
        if not loops(host) and not (settings.allow_remote and settings.token_file):
            text = f"{section}: systemd listens on {host}, for other machines too; set allow_remote and token_file"
            raise StartError(f"{text}, or change the socket unit")
        if (host, port) != (settings.host, settings.port):
            text = f"{section}: systemd opened {host} port {port}, and that counts; the config names another"
            emit(Notice(text, "warning"))
        await web.SockSite(runner, ours, backlog=BACKLOG).start()
        return
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"{section}: cannot listen on {settings.host} port {settings.port}: {reason}; "
            "is another sidecar running, or the port taken?"
        ) from None


async def _close(runner: web.BaseRunner, door: Door) -> None:
    for site in runner.sites:
        await site.stop()
    await door.settle()
    await runner.cleanup()
