"""Wires the parts together and runs them: the only file that sees the whole config.

state -> pump -> write-behind -> listeners        undone in reverse: stop accepting, drain, flush
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sidecar import __version__
from sidecar.backend.client import Backend
from sidecar.backend.guard import Guard
from sidecar.clock import Clock, SystemClock
from sidecar.config.backend_target import target_from
from sidecar.config.credentials import read_token
from sidecar.config.lint import warnings
from sidecar.config.loader import dotted, load
from sidecar.config.models import Admin as AdminSettings
from sidecar.config.models import Listen, Settings
from sidecar.config.policies import policies_from
from sidecar.core.breaker import BreakerRules, Permit
from sidecar.core.events import Limits as OutboxLimits
from sidecar.core.model import Endpoint, Event, Query, Verdict
from sidecar.core.schedule import Pacing
from sidecar.daemon import systemd
from sidecar.daemon.heartbeat import Heartbeat
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.resolver import Resolver
from sidecar.decisions.write_behind import WriteBehind
from sidecar.errors import DiskError, SidecarError
from sidecar.events.outbox import Outbox
from sidecar.facts import BreakerChanged, Crashed, Emit, Fact, Notice, Reloaded, broadcast
from sidecar.store import Store, read_boot_id
from sidecar.telemetry.health import Health
from sidecar.telemetry.logs import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent import Recent
from sidecar.web.admin import Admin
from sidecar.web.auth import require_token
from sidecar.web.connections import HEAD_SECONDS, KEEP_ALIVE, Connections, note_requests
from sidecar.web.listeners import Address, listen
from sidecar.web.server import WebhookServer
from sidecar.web.status_page import page
from sidecar.web.webhooks import Webhooks, WebhookSettings

RESTART_ONLY = ("listen", "admin", "state_dir", "cache", "outbox")
"""Sections that a reload leaves as they were; `backend.max_in_flight` and `breaker` change at once."""

GRACE = 1.0
"""Seconds beyond the longest deadline that a stop waits for what is under way."""

COUNTING = 1.0
"""Seconds a start waits for the disk to say how many events an earlier process left."""

Stop = Callable[[], Awaitable[None]]

_PERMIT_NUMBER = {Permit.CLOSED: 0, Permit.PROBE_FREE: 1, Permit.PROBE_OUT: 1, Permit.OPEN: 2}


@dataclass(frozen=True, slots=True)
class Observers:
    """Those who get every fact."""

    log: Log
    metrics: Metrics
    health: Health
    recent: Recent

    def emit(self, *more: Emit) -> Emit:
        """One emitter for all of them."""
        return broadcast(self.health.observe, self.metrics.observe, self.recent.observe, self.log.observe, *more)


class Daemon:
    """All parts, built from settings. `serve` runs them until `stop` is called."""

    def __init__(self, settings: Settings, source: Path | None, clock: Clock, environ: dict[str, str]) -> None:
        """`source` is what a reload reads again. Raises StartError for a secret that cannot be read."""
        self._settings = settings
        self._source = source
        self._clock = clock
        self._environ = environ
        self._started_at = clock.wall()
        self._reloaded_at = self._started_at
        self._stopping = asyncio.Event()
        self._connections = {section: Connections(clock) for section in ("listen", "admin")}
        self._admin_token = read_token("admin-token", settings.admin.token_file, environ)
        self._passed = systemd.passed_sockets(environ)
        watchdog = systemd.watchdog_seconds(environ)
        self._heartbeat = Heartbeat(clock, watchdog, self._in_words, self._tell_systemd)
        self._observers = Observers(Log(settings.log.level, settings.log.format), Metrics(), Health(), Recent(clock))
        self._emit = self._observers.emit(self._hint)
        jitter = random.random
        self._backend = Backend(target_from(settings, environ), clock)
        breaker = BreakerRules(**settings.breaker.model_dump())
        self._guards = {
            endpoint: Guard(endpoint, self._backend, breaker, settings.backend.max_in_flight, clock, jitter, self._emit)
            for endpoint in (Endpoint.ROOM_CREATED, Endpoint.VALIDATE_ACCESS)
        }
        self._cache = Cache(Limits(**settings.cache.model_dump()))
        self._store = Store(settings.state_dir, clock, read_boot_id(), self._emit)
        self._memory = WriteBehind(self._cache, self._store.decisions)
        limits = settings.outbox
        self._outbox = Outbox(
            self._store.events,
            self._backend.deliver,
            clock=clock,
            jitter=jitter,
            emit=self._emit,
            limits=OutboxLimits(max_events=limits.max_events, max_age=limits.max_age),
            pacing=Pacing(max_in_flight=limits.max_in_flight, cap=limits.backoff_cap),
            timeout=limits.timeout,
        )
        self._resolver = Resolver(
            self._cache,
            self._guards,
            policies_from(settings),
            self._memory,
            self._deliver_later,
            clock,
            jitter,
            self._emit,
        )
        self._webhooks = Webhooks(
            self._resolver, self._outbox, _webhook_settings(settings, environ), clock, secrets.token_hex, self._emit
        )
        self._admin = Admin(
            self._resolver,
            self._guards,
            self._outbox,
            self._observers.health,
            self._observers.metrics.expose,
            self._facts,
            clock,
        )
        self._watch()

    async def serve(self) -> None:
        """Run until stopped; raises StartError where it cannot start."""
        settings = self._settings
        health = self._observers.health
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._store)
            await stack.enter_async_context(self._backend)
            await self._beside(stack, self._memory.run(), self._memory.stop)
            await self._beside(stack, self._outbox.run(), self._outbox.stop)
            await self._outbox.counted(COUNTING)
            stack.push_async_callback(self._drain)
            app = self._admin.app()
            app.router.add_get("/", page)
            connections = self._connections["admin"]
            app.middlewares[:] = [
                note_requests(connections),
                require_token(lambda: self._admin_token),
                *app.middlewares,
            ]
            quiet = _only_our_own_defects()
            admin = web.AppRunner(
                app, access_log=None, keepalive_timeout=KEEP_ALIVE, shutdown_timeout=GRACE, logger=quiet
            )
            await listen(stack, admin, _address("admin", settings.admin), self._passed, connections, self._emit)
            connections = self._connections["listen"]
            server = WebhookServer(self._webhooks, connections.note_request, KEEP_ALIVE)
            webhooks = web.ServerRunner(server, shutdown_timeout=self._patience())
            await listen(stack, webhooks, _address("listen", settings.listen), self._passed, connections, self._emit)
            health.serving = True
            self._tell_systemd("READY=1")
            await self._beside(stack, self._heartbeat.run(), _nothing_to_stop)
            await self._beside(stack, self._sweep(), _nothing_to_stop)
            self._say_what_is_unwise()
            self._emit(Notice(f"ready: prosody-sidecar {__version__}, {_where(settings)}"))
            await self._stopping.wait()
            health.serving = False
            self._tell_systemd("STOPPING=1\nSTATUS=Stopping: answering what is under way")
            self._emit(Notice("stopping: no new connections, answering what is under way"))
        self._emit(Notice("stopped"))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(HEAD_SECONDS / 5)
            for connections in self._connections.values():
                connections.sweep()

    def stop(self) -> None:
        """Begin to stop."""
        self._stopping.set()

    def reload(self) -> None:
        """Read the config again: all of it, or, if anything is wrong with it, nothing."""
        if self._source is None:
            return
        self._tell_systemd("RELOADING=1")
        self._read_again(self._source)
        self._tell_systemd("READY=1")

    def _read_again(self, source: Path) -> None:
        try:
            settings = load(source)
            target = target_from(settings, self._environ)
            webhook_settings = _webhook_settings(settings, self._environ, prefix=self._settings.listen.prefix)
            admin_token = read_token("admin-token", settings.admin.token_file, self._environ)
        except SidecarError as error:
            self._emit(Reloaded(problems=tuple(str(error).splitlines())))
            return
        old, self._settings = self._settings, settings
        target_changed = target != self._backend.target
        self._backend.target = target
        self._admin_token = admin_token
        self._resolver.policy_for = policies_from(settings)
        self._webhooks.settings = webhook_settings
        self._observers.log.configure(settings.log.level, settings.log.format)
        for guard in self._guards.values():
            guard.configure(BreakerRules(**settings.breaker.model_dump()), settings.backend.max_in_flight)
            if target_changed:
                guard.try_now()
        self._reloaded_at = self._clock.wall()
        changed = tuple(name for name in RESTART_ONLY if getattr(old, name) != getattr(settings, name))
        self._emit(Reloaded(restart_only=changed))
        self._say_what_is_unwise()

    def _say_what_is_unwise(self) -> None:
        for advice in warnings(self._settings) if self._source is not None else ():
            self._emit(Notice(f"config: {dotted(advice.where)}: {advice.text}", "warning"))

    def _patience(self) -> float:
        endpoints = self._settings.endpoints
        return max(endpoints.room_created.deadline, endpoints.validate_access.deadline) + GRACE

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
            self._emit(Crashed("engine", error))
            self.stop()  # a service manager starts it again; half a sidecar helps nobody

    async def _drain(self) -> None:
        await self._resolver.drain(self._patience())

    def _hint(self, fact: Fact) -> None:
        """What the joins find out about the backend is of use to the events: they need not wait for their own probe."""
        if isinstance(fact, BreakerChanged) and fact.state == "closed":
            self._outbox.nudge()

    def _deliver_later(self, query: Query) -> None:
        """The backend was away when this room was made: tell it afterwards, before the room's other events."""
        key = query.key
        event = Event(key.endpoint, key.room, query.body, secrets.token_hex(16), self._clock.wall(), query.traceparent)
        self._outbox.deliver_later(event)

    def _tell_systemd(self, message: str) -> None:
        systemd.notify(message, self._environ.get("NOTIFY_SOCKET"))

    def _in_words(self) -> str:
        """One sentence for `systemctl status`."""
        reasons = self._observers.health.reasons()
        if not self._observers.health.serving:
            return "Stopping: answering what is under way"
        if reasons:
            more = f" (and {len(reasons) - 1} more: prosody-sidecar status)" if len(reasons) > 1 else ""
            return f"Degraded: {reasons[0][:300]}{more}"
        remembered = sum(self._cache.count(verdict) for verdict in Verdict)
        return f"Well: {remembered} answers remembered, {self._outbox.pending():.0f} events on their way"

    def _facts(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "version": __version__,
            "uptime_seconds": round(self._clock.wall() - self._started_at, 1),
            "started_at": round(self._started_at, 3),
            "memory_bytes": _memory_bytes(),
            "loop_lag_seconds": round(self._heartbeat.lag, 4),
            "recent": self._observers.recent.document(),
            "config": str(self._source) if self._source else "built in",
            "config_read_at": round(self._reloaded_at, 3),
            "backend": settings.backend.url,
            "state_dir": str(settings.state_dir) if settings.state_dir else None,
        }

    def _watch(self) -> None:
        """The gauges that are read when Prometheus asks."""
        watch, clock = self._observers.metrics.watch, self._clock

        def breaker_reader(guard: Guard) -> Callable[[], float]:
            return lambda: _PERMIT_NUMBER[guard.permit(clock.monotonic(), "")]

        def calls_reader(guard: Guard) -> Callable[[], float]:
            return lambda: guard.calls_under_way

        def entries_reader(verdict: Verdict) -> Callable[[], float]:
            return lambda: self._cache.count(verdict)

        for endpoint, guard in self._guards.items():
            text = "0 closed, 1 half-open, 2 open"
            watch("breaker_state", text, breaker_reader(guard), endpoint=str(endpoint))
            text = "Calls to the backend that hold a place now"
            watch("backend_calls_under_way", text, calls_reader(guard), endpoint=str(endpoint))
        for verdict in Verdict:
            watch("cache_entries", "Answers in memory", entries_reader(verdict), verdict=verdict.value)
        watch("loop_lag_seconds", "Seconds by which the event loop was late a moment ago", lambda: self._heartbeat.lag)
        watch("degraded", "Reasons why /readyz says degraded", lambda: len(self._observers.health.reasons()))
        watch("outbox_pending", "Events not delivered yet", self._outbox.pending)
        watch("outbox_parked", "Events the backend will not take", self._outbox.parked)
        watch("outbox_oldest_seconds", "Age of the oldest event not delivered yet", self._outbox.oldest_age)


async def run(settings: Settings, source: Path | None, companion: Callable[[], Awaitable[None]] | None = None) -> None:
    """Build a daemon and serve until SIGTERM or SIGINT. `companion` runs beside it, such as the demo backend; when it
    ends, so does the daemon, and what it raised is raised."""
    daemon = Daemon(settings, source, SystemClock(), dict(os.environ))
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


def _only_our_own_defects() -> logging.Logger:
    """aiohttp's log, without a traceback for every stranger who does not speak HTTP."""
    logger = logging.getLogger("aiohttp.server")
    logger.addFilter(lambda record: not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError)))
    return logger


def _memory_bytes() -> int:
    """What the process holds of the machine's memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _nothing_to_stop() -> None:
    pass


def _webhook_settings(settings: Settings, environ: dict[str, str], prefix: str | None = None) -> WebhookSettings:
    domains = frozenset(domain.lower() for domain in settings.identity.anonymous_domains)
    token = read_token("listen-token", settings.listen.token_file, environ)
    return WebhookSettings(
        settings.listen.prefix if prefix is None else prefix, domains, settings.log.identities, token
    )


def _address(section: str, settings: Listen | AdminSettings) -> Address:
    remote_allowed = settings.allow_remote and settings.token_file is not None
    return Address(section, settings.host, settings.port, remote_allowed)


def _where(settings: Settings) -> str:
    listen, admin = settings.listen, settings.admin
    return (
        f"webhooks on http://{listen.host}:{listen.port}{listen.prefix}, "
        f"admin on http://{admin.host}:{admin.port}, backend {settings.backend.url}"
    )
