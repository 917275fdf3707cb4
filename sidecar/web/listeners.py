"""Listeners: on a socket from systemd or on our own, and stopped without dropping a request.

stop: no new connections -> wait for the first requests of silent ones (connections.py) -> end the links, and what is
being answered

A runner is aiohttp's: what answers on a listener, and how long it may go on when the listener stops.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sidecar.core.addresses import is_loopback
from sidecar.errors import StartError
from sidecar.facts import Emit, Notice
from sidecar.web.admin import Admin
from sidecar.web.auth import require_token
from sidecar.web.connections import KEEP_ALIVE, Connections, note_requests
from sidecar.web.control import Control, Identify, local_user
from sidecar.web.link import Links
from sidecar.web.server import WebhookServer
from sidecar.web.status_page import page
from sidecar.web.webhooks import Webhooks

BACKLOG = 4096
"""Connections that may wait in the kernel. The kernel has a limit of its own, net.core.somaxconn."""

AT_A_TIME = 16
"""Connections that are accepted before those that are open get their turn again. With many, a burst is first read as a
whole, and there is no time left to answer it."""

PASSED_AS = {"listen": "webhook", "admin": "admin", "control": "control", "admin socket": "admin-socket"}
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
    admin: Admin, control: Control, connections: Connections, tokens: Callable[[], Sequence[str]], shutdown: float
) -> web.BaseRunner:
    """What operators ask, and the page. `tokens` are read at each request; `shutdown`: seconds for open requests."""
    app = admin.app()
    app.router.add_get("/", page)
    app.add_routes(control.routes(local_user))
    app.middlewares[:] = [note_requests(connections), require_token(tokens), *app.middlewares]
    return _app_runner(app, shutdown)


def admin_socket_runner(admin: Admin, control: Control, connections: Connections, shutdown: float) -> web.BaseRunner:
    """The same for who may open the admin socket: no token is needed, also for what changes something."""
    app = admin.app()
    app.add_routes(control.routes(local_user))
    app.middlewares.insert(0, note_requests(connections))
    return _app_runner(app, shutdown)


def control_runner(control: Control, connections: Connections, identify: Identify, shutdown: float) -> web.BaseRunner:
    """What the meeting service orders."""
    app = control.app(identify)
    app.middlewares.insert(0, note_requests(connections))
    return _app_runner(app, shutdown)


def _app_runner(app: web.Application, shutdown: float) -> web.BaseRunner:
    quiet = _only_our_own_defects()
    return web.AppRunner(app, access_log=None, keepalive_timeout=KEEP_ALIVE, shutdown_timeout=shutdown, logger=quiet)


def webhook_runner(webhooks: Webhooks, links: Links, connections: Connections, shutdown: float) -> web.BaseRunner:
    """What Prosody asks. `shutdown`: seconds for what is under way."""
    server = WebhookServer(webhooks, links, connections, KEEP_ALIVE)
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
    *,
    tls: ssl.SSLContext | None = None,
    end_links: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve until the stack is unwound. `end_links` ends the connections that do not end with an answer. Raises
    StartError if the address cannot be used."""
    await runner.setup()
    stack.push_async_callback(_stop, runner, connections, end_links)
    connections.watch(runner.server)
    opened = passed.get(PASSED_AS[address.section])
    if opened is not None:
        _check_passed(opened, address, emit)
    for each in [opened] if opened is not None else await _sockets_on(address):
        # For asyncio, the two are one number.
        await web.SockSite(runner, each, backlog=AT_A_TIME, ssl_context=tls).start()
        each.listen(BACKLOG)


async def listen_locally(
    stack: AsyncExitStack,
    runner: web.BaseRunner,
    path: Path | None,
    passed: Mapping[str, socket.socket],
    connections: Connections,
) -> None:
    """Serve on the admin socket: that of systemd, or one at this path, which only the own user and group may open.
    Raises OSError if there can be none."""
    await runner.setup()
    stack.push_async_callback(_stop, runner, connections, None)
    connections.watch(runner.server)
    opened = passed.get(PASSED_AS["admin socket"])
    if opened is None and path is not None:
        opened = open_socket(path)
        stack.callback(path.unlink, missing_ok=True)
    if opened is not None:
        await web.SockSite(runner, opened, backlog=BACKLOG).start()


def open_socket(path: Path) -> socket.socket:
    """A socket at this path, in place of one on which nobody listens any more. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                if other.connect_ex(str(path)) == 0:
                    raise OSError(errno.EADDRINUSE, "another sidecar listens there")
            path.unlink()
        before = os.umask(0o777)  # nobody may connect before the mode is set
        try:
            opened.bind(str(path))
        finally:
            os.umask(before)
        path.chmod(0o660)
    except BaseException:
        opened.close()
        raise
    return opened


async def _sockets_on(address: Address) -> list[socket.socket]:
    """One for each address that the host's name has."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [socket.create_server(where, family=family) for family, _, _, _, where in found]
    except (OSError, UnicodeError) as error:  # UnicodeError: the text is no possible host name
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"{address.section}: cannot listen on {address.host} port {address.port}: {reason}; "
            "is another sidecar running, or the port taken?"
        ) from None


def _check_passed(opened: socket.socket, address: Address, emit: Emit) -> None:
    """The socket of systemd is used, also where it differs from the config; but remote access must be allowed there."""
    section = address.section
    host, port = opened.getsockname()[:2]
    if not is_loopback(host) and not address.remote_allowed:
        text = f"{section}: systemd listens on {host}, for other machines too; set allow_remote and token_file"
        raise StartError(f"{text}, or change the socket unit")
    if (host, port) != (address.host, address.port):
        text = f"{section}: systemd opened {host} port {port}, and that counts; the config names another"
        emit(Notice(text, "warning"))


async def _stop(
    runner: web.BaseRunner, connections: Connections, end_links: Callable[[], Awaitable[None]] | None
) -> None:
    for site in runner.sites:
        await site.stop()
    await connections.settle()
    if end_links is not None:
        await end_links()
    await runner.cleanup()
