"""How the sidecar is: a sentence for systemd, a document for `status`, gauges for Prometheus."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from sidecar import __version__
from sidecar.backend.bulkhead import Bulkhead
from sidecar.backend.client import Backend
from sidecar.backend.guard import Guard
from sidecar.clock import Clock
from sidecar.core.breaker import Permit
from sidecar.core.model import ANSWERS, Endpoint, Verdict
from sidecar.daemon.current import Current
from sidecar.daemon.heartbeat import Heartbeat
from sidecar.decisions.cache import Cache
from sidecar.decisions.shared_memory import SharedMemory
from sidecar.events.outbox import Outbox
from sidecar.store import Store
from sidecar.telemetry.health import KINDS, Health
from sidecar.telemetry.recent import Recent
from sidecar.web.hosts import Hosts
from sidecar.web.link import Links

_PERMIT_NUMBER = {Permit.CLOSED: 0, Permit.PROBE_FREE: 1, Permit.PROBE_OUT: 1, Permit.OPEN: 2}


class Watch(Protocol):
    """Adds a gauge that is read when Prometheus asks."""

    def __call__(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Calls with one name have the same labels."""
        ...


def sentence(health: Health, cache: Cache, outbox: Outbox) -> str:
    """One sentence for `systemctl status`."""
    reasons = health.reasons()
    if not health.serving:
        return "Stopping: answering what is under way"
    if reasons:
        more = f" (and {len(reasons) - 1} more: prosody-sidecar status)" if len(reasons) > 1 else ""
        return f"Degraded: {reasons[0][:300]}{more}"
    remembered = sum(cache.count(verdict) for verdict in ANSWERS)
    return f"Well: {remembered} answers remembered, {outbox.pending():.0f} events on their way"


def document(
    current: Current,
    recent: Recent,
    heartbeat: Heartbeat,
    store: Store,
    links: Links,
    hosts: Hosts,
    shared: SharedMemory | None,
    clock: Clock,
) -> dict[str, Any]:
    """What `status` shows beside what the admin listener knows itself."""
    state_dir = current.started_with.state_dir
    return {
        "version": __version__,
        "uptime_seconds": round(clock.wall() - current.started_at, 1),
        "started_at": round(current.started_at, 3),
        "memory_bytes": _memory_bytes(),
        "loop_lag_seconds": round(heartbeat.lag, 4),
        "recent": recent.document(),
        "config": str(current.source) if current.source else "built in",
        "config_read_at": round(current.read_at, 3),
        "backend": current.settings.backend.url,
        "state_dir": str(state_dir) if state_dir else None,
        "files_set_aside": list(store.aside),
        "modules": links.document(),
        "hosts": hosts.document(),
        "shared": None if shared is None else shared.document(),
    }


def _memory_bytes() -> int:
    """What the process holds of the machine's memory."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def add_gauges(
    watch: Watch,
    backend: Backend,
    bulkhead: Bulkhead,
    guards: Mapping[Endpoint, Guard],
    cache: Cache,
    outbox: Outbox,
    health: Health,
    heartbeat: Heartbeat,
    store: Store,
    links: Links,
    clock: Clock,
) -> None:
    """The gauges of all parts."""

    def breaker_reader(guard: Guard) -> Callable[[], float]:
        return lambda: _PERMIT_NUMBER[guard.permit(clock.monotonic(), "")]

    def calls_reader(guard: Guard) -> Callable[[], float]:
        return lambda: guard.calls_under_way

    def entries_reader(verdict: Verdict) -> Callable[[], float]:
        return lambda: cache.count(verdict)

    def forbids_reader(endpoint: Endpoint) -> Callable[[], float]:
        return lambda: health.forbids_outage_use(endpoint)

    for endpoint, guard in guards.items():
        watch("useless_in_an_outage", forbids_reader(endpoint), endpoint=str(endpoint))
        watch("breaker_state", breaker_reader(guard), endpoint=str(endpoint))
        watch("backend_calls_under_way", calls_reader(guard), endpoint=str(endpoint))
    watch("backend_limit", lambda: bulkhead.limit.at(clock.monotonic()))
    watch("backend_calls_waiting", lambda: bulkhead.waiting)
    for verdict in ANSWERS:
        watch("cache_entries", entries_reader(verdict), verdict=verdict.value)
    watch("loop_lag_seconds", lambda: heartbeat.lag)
    watch("serving", lambda: health.serving)
    watch("degraded", lambda: len(health.reasons()))
    for kind in KINDS:
        watch("degraded_by", partial(health.count, kind), kind=kind)
    watch("backend_certificate_end_seconds", lambda: backend.certificate_end)
    watch("outbox_pending", outbox.pending)
    watch("outbox_parked", outbox.parked)
    watch("outbox_oldest_seconds", outbox.oldest_age)
    watch("links", lambda: len(links.connected()))
    watch("files_set_aside", lambda: len(store.aside))
