"""Listeners: on the socket that systemd passed or one of our own, closed without dropping anybody.

A runner is aiohttp's: what answers on a listener, and how long it may go on when the listener closes.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.core.addresses import is_loopback
from sidecar.errors import StartError
from sidecar.facts import Emit, Notice
from sidecar.web.admin import Admin
from sidecar.web.auth import require_token
from sidecar.web.connections import KEEP_ALIVE, Connections, note_requests
from sidecar.web.server import WebhookServer
from sidecar.web.status_page import page
from sidecar.web.webhooks import Webhooks

BACKLOG = 1024
"""Connections that may wait to be accepted."""

PASSED_AS = {"listen": "webhook", "admin": "admin"}
"""Section of the config -> FileDescriptorName= of the socket that systemd may pass for it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, as a section of the config says it."""

    section: str
    host: str
    port: int
    remote_allowed: bool = False
    """Whether other machines may ask: `allow_remote` is set, and so is `token_file`."""


def admin_runner(
    admin: Admin, connections: Connections, token: Callable[[], str | None], shutdown: float
) -> web.BaseRunner:
    """What operators ask, and the page. `token` is read at each request; `shutdown`: seconds for what is under way."""
    app = admin.app()
    app.router.add_get("/", page)
    app.middlewares[:] = [note_requests(connections), require_token(token), *app.middlewares]
    quiet = _only_our_own_defects()
    return web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE, shutdown_timeout=shutdown, logger=quiet)


def webhook_runner(webhooks: Webhooks, connections: Connections, shutdown: float) -> web.BaseRunner:
    """What Prosody asks. `shutdown`: seconds for what is under way."""
    server = WebhookServer(webhooks, connections.note_request, KEEP_ALIVE)
    return web.ServerRunner(server, shutdown_timeout=shutdown)


def _only_our_own_defects() -> logging.Logger:
    """aiohttp's log, without a traceback for every stranger who does not speak HTTP."""
    logger = logging.getLogger("aiohttp.server")
    logger.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
    return logger


async def listen(
    stack: AsyncExitStack,
    runner: web.BaseRunner,
    address: Address,
    passed: Mapping[str, socket.socket],
    connections: Connections,
    emit: Emit,
) -> None:
    """Serve until the stack is unwound. Raises StartError when the port cannot be had."""
    await runner.setup()
    stack.push_async_callback(_close, runner, connections)
    connections.watch(runner.server)
    section = address.section
    ours = passed.get(PASSED_AS[section])
    if ours is not None:
        host, port = ours.getsockname()[:2]
        if not is_loopback(host) and not address.remote_allowed:
            text = f"{section}: systemd listens on {host}, for other machines too; set allow_remote and token_file"
            raise StartError(f"{text}, or change the socket unit")
        if (host, port) != (address.host, address.port):
            text = f"{section}: systemd opened {host} port {port}, and that counts; the config names another"
            emit(Notice(text, "warning"))
        await web.SockSite(runner, ours, backlog=BACKLOG).start()
        return
    try:
        await web.TCPSite(runner, address.host, address.port, backlog=BACKLOG).start()
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"{section}: cannot listen on {address.host} port {address.port}: {reason}; "
            "is another sidecar running, or the port taken?"
        ) from None


async def _close(runner: web.BaseRunner, connections: Connections) -> None:
    for site in runner.sites:
        await site.stop()
    await connections.settle()
    await runner.cleanup()
