"""Opens a listener: on the socket that systemd passed for it, or on one of our own."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack

from aiohttp import web

from sidecar.errors import StartError
from sidecar.settings import Admin, Listen
from sidecar.signals import Emit, Notice

BACKLOG = 1024
"""Connections that may wait to be accepted."""

PASSED_AS = {"listen": "webhook", "admin": "admin"}
"""Section of the config -> FileDescriptorName= of the socket that systemd may pass for it."""


async def listen(
    stack: AsyncExitStack,
    runner: web.BaseRunner,
    section: str,
    settings: Listen | Admin,
    passed: Mapping[str, socket.socket],
    emit: Emit,
) -> None:
    """Serve until the stack is unwound. Raises StartError when the port cannot be had."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    ours = passed.get(PASSED_AS[section])
    if ours is not None:
        await web.SockSite(runner, ours, backlog=BACKLOG).start()
        host, port = ours.getsockname()[:2]
        if (host, port) != (settings.host, settings.port):
            text = f"{section}: systemd opened {host} port {port}, and that counts; the config names another"
            emit(Notice(text, "warning"))
        return
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=BACKLOG).start()
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that cannot be one
        reason = getattr(error, "strerror", None) or str(error)
        raise StartError(
            f"{section}: cannot listen on {settings.host} port {settings.port}: {reason}; "
            "is another sidecar running, or the port taken?"
        ) from None
