"""Starts the parts in order and stops them in reverse.

state -> events -> write-behind -> listeners        undone in reverse: stop accepting, drain, flush
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

from sidecar import __version__
from sidecar.clock import SystemClock, until_next
from sidecar.config.admin_socket import admin_socket
from sidecar.config.models import Admin as AdminSettings
from sidecar.config.models import Control, Listen, Settings
from sidecar.control.orders import ANSWER_WITHIN
from sidecar.daemon import systemd
from sidecar.daemon.build import Parts, build
from sidecar.daemon.current import read_secrets
from sidecar.daemon.reload import InThread, reload, say_what_is_unwise
from sidecar.errors import DiskError, StartError
from sidecar.facts import Crashed, Notice
from sidecar.store import read_boot_id
from sidecar.web.connections import HEAD_SECONDS
from sidecar.web.listeners import (
    Address,
    admin_runner,
    admin_socket_runner,
    control_runner,
    listen,
    listen_locally,
    webhook_runner,
)

GRACE = 1.0
"""Seconds beyond the longest deadline that a stop waits for what is under way."""

COUNTING = 1.0
"""Seconds a start waits for the disk to say how many events an earlier process left, and which denies."""

COLLECT = 20_000, 20, 20
"""Objects before Python looks for cycles among the new ones, and how many times before it looks further. In a burst,
all objects are of requests under way, and with its own 700 Python spends a fifth of its time to find that out."""

Stop = Callable[[], Awaitable[None]]


async def run(
    settings: Settings,
    source: Path | None,
    companion: Callable[[], Awaitable[None]] | None = None,
    advice: Sequence[str] = (),
) -> None:
    """Build a daemon and serve until SIGTERM or SIGINT. `companion` runs beside it, such as the demo backend; when it
    ends, so does the daemon, and what it raised is raised. `advice`: warnings about the settings, for the log. Raises
    StartError where it cannot start."""
    daemon = _daemon(settings, source, dict(os.environ), advice)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    loop.add_signal_handler(signal.SIGHUP, daemon.reload)
    if companion is None:
        await daemon.serve()
        return
    beside = asyncio.ensure_future(companion())
    beside.add_done_callback(lambda _: daemon.stop())
    try:
        await daemon.serve()
    finally:
        beside.cancel()
        (ended,) = await asyncio.gather(beside, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


def _daemon(settings: Settings, source: Path | None, environ: Mapping[str, str], advice: Sequence[str]) -> Daemon:
    """Read what building needs of the machine, and build."""
    notify = partial(systemd.notify, address=environ.get("NOTIFY_SOCKET"))
    parts = build(
        settings,
        read_secrets(settings, environ),
        source,
        clock=SystemClock(),
        boot=read_boot_id(),
        watchdog=systemd.watchdog_seconds(environ),
        notify=notify,
    )
    return Daemon(parts, environ, systemd.passed_sockets(environ), notify, advice)


class Daemon:
    """Runs the parts. `serve` returns when `stop` was called."""

    def __init__(
        self,
        parts: Parts,
        environ: Mapping[str, str],
        passed: Mapping[str, socket],
        notify: Callable[[str], None],
        advice: Sequence[str] = (),
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        """`passed` are the sockets of systemd, `notify` tells it something, `advice` are warnings about the config.
        `in_thread` reads files while joins are answered."""
        self._parts = parts
        self._environ = environ
        self._passed = passed
        self._notify = notify
        self._advice = list(advice)
        self._in_thread = in_thread
        self._stopping = asyncio.Event()
        self._reload_wanted = asyncio.Event()

    async def serve(self) -> None:
        """Run until stopped; raises StartError where it cannot start."""
        parts = self._parts
        async with AsyncExitStack() as stack:
            await self._start_engines(stack)
            await self._open_listeners(stack)
            gc.set_threshold(*COLLECT)
            parts.health.serving = True
            self._notify("READY=1")
            await self._beside(stack, parts.heartbeat.run(), _nothing_to_stop)
            await self._beside(stack, self._sweep(), _nothing_to_stop)
            say_what_is_unwise(parts, self._advice)
            parts.emit(Notice(f"ready: prosody-sidecar {__version__}, {_where(parts.current.settings)}"))
            await self._beside(stack, self._reload_when_wanted(), _nothing_to_stop)
            await self._stopping.wait()
            parts.health.serving = False
            self._notify("STOPPING=1\nSTATUS=Stopping: answering what is under way")
            parts.emit(Notice("stopping: no new connections, answering what is under way"))
        parts.emit(Notice("stopped"))

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    def reload(self) -> None:
        """Have the config read again, as soon as the listeners are open and no other reload is under way."""
        if self._parts.current.source is not None and not self._stopping.is_set():
            self._reload_wanted.set()

    async def _reload_when_wanted(self) -> None:
        while True:
            await self._reload_wanted.wait()
            self._reload_wanted.clear()
            await self.reload_now()

    async def reload_now(self) -> None:
        """Raises nothing; systemd always hears that it is over."""
        try:
            # systemd compares this time, of CLOCK_MONOTONIC, with that of its signal (sd_notify(3)).
            now = int(asyncio.get_running_loop().time() * 1e6)
            self._notify(f"RELOADING=1\nMONOTONIC_USEC={now}")
            await reload(self._parts, self._environ, self._in_thread)
        except Exception as error:  # noqa: BLE001 - a defect after the reload itself, which is complete
            self._parts.emit(Crashed("reload", error))
        finally:
            if not self._stopping.is_set():
                self._notify("READY=1")

    async def _start_engines(self, stack: AsyncExitStack) -> None:
        parts = self._parts
        await stack.enter_async_context(parts.store)
        await stack.enter_async_context(parts.backend)
        await self._beside(stack, parts.memory.run(), parts.memory.stop)
        await self._beside(stack, parts.delivery.run(), self._stop_events)
        await self._beside(stack, parts.orders.run(), self._stop_orders)
        if parts.shared is not None:
            stack.push_async_callback(parts.shared.memory.close)
            await self._beside(stack, parts.shared.memory.run(), parts.shared.memory.stop)
            await self._beside(stack, parts.shared.shards.run(), parts.shared.shards.stop)
        await asyncio.gather(parts.backlog.counted(COUNTING), parts.memory.denies_read(COUNTING))
        stack.push_async_callback(self._drain)

    async def _open_listeners(self, stack: AsyncExitStack) -> None:
        parts, settings = self._parts, self._parts.current.settings
        await self._open_admin_socket(stack)
        if parts.current.control_keys:
            connections = parts.connections["control"]
            control = control_runner(parts.control, connections, parts.key_holders.identify, ANSWER_WITHIN + GRACE)
            address = _address("control", settings.control)
            await listen(stack, control, address, self._passed, connections, parts.emit, tls=parts.control_tls)
        connections = parts.connections["admin"]
        admin = admin_runner(parts.admin, parts.control, connections, lambda: parts.current.admin_tokens, GRACE)
        await listen(stack, admin, _address("admin", settings.admin), self._passed, connections, parts.emit)
        connections = parts.connections["listen"]
        webhooks = webhook_runner(parts.webhooks, parts.links, connections, self._patience())
        address, end_links = _address("listen", settings.listen), partial(parts.links.end, self._patience())
        await listen(stack, webhooks, address, self._passed, connections, parts.emit, end_links=end_links)

    async def _open_admin_socket(self, stack: AsyncExitStack) -> None:
        """Raises StartError only for a path that the config names: a place where none can be made is no reason not to
        answer Prosody."""
        parts, settings = self._parts, self._parts.current.settings
        connections, path = parts.connections["admin socket"], admin_socket(settings, self._environ)
        runner = admin_socket_runner(parts.admin, parts.control, connections, GRACE)
        try:
            await listen_locally(stack, runner, path, self._passed, connections)
        except OSError as error:
            text = f"admin.socket: cannot listen on {path}: {error.strerror or error}"
            if settings.admin.socket is not None:
                raise StartError(f"{text}; choose a path in a folder that the sidecar may write to") from None
            parts.emit(Notice(f"{text}; commands that change something cannot be used", "warning"))

    async def _beside(self, stack: AsyncExitStack, work: Coroutine[Any, Any, None], stop: Stop) -> None:
        """Run an engine beside the listeners; when they are closed, end it, and let it put down what it holds."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._engine_ended)

        async def end() -> None:
            with contextlib.suppress(DiskError):  # already said as DiskChanged
                await stop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(end)

    def _engine_ended(self, task: asyncio.Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._parts.emit(Crashed("engine", error))
            self.stop()  # a service manager starts it again; half a sidecar helps nobody

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(until_next(HEAD_SECONDS / 5, asyncio.get_running_loop().time()))
            for connections in self._parts.connections.values():
                connections.sweep()
            self._parts.links.sweep()

    async def _stop_events(self) -> None:
        await asyncio.gather(self._parts.delivery.stop(), self._parts.outbox.flush())

    async def _stop_orders(self) -> None:
        await asyncio.gather(self._parts.orders.stop(), self._parts.restarts.stop())

    async def _drain(self) -> None:
        await self._parts.resolver.drain(self._patience())

    def _patience(self) -> float:
        endpoints = self._parts.current.settings.endpoints
        return max(endpoints.room_created.deadline, endpoints.validate_access.deadline) + GRACE


async def _nothing_to_stop() -> None:
    pass


def _address(section: str, settings: Listen | AdminSettings | Control) -> Address:
    remote_allowed = settings.allow_remote and settings.token_file is not None
    return Address(section, settings.host, settings.port, remote_allowed)


def _where(settings: Settings) -> str:
    listen, admin = settings.listen, settings.admin
    return (
        f"webhooks on http://{listen.host}:{listen.port}{listen.prefix}, "
        f"admin on http://{admin.host}:{admin.port}, backend {settings.backend.url}"
    )
