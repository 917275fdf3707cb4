"""All parts, made from settings: the only file that knows what each of them needs.

Nothing is opened, read or started here; `lifecycle` does that. So a test can build the whole sidecar.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import random
from secrets import token_hex
from typing import TextIO

from sidecar.backend.bulkhead import Bulkhead
from sidecar.backend.client import Backend
from sidecar.backend.guard import Guard
from sidecar.backend.meter import Meter
from sidecar.backend.sender import Sender
from sidecar.clock import Clock
from sidecar.config.models import OutboxSettings, Settings
from sidecar.config.policies import policies_from
from sidecar.control.orders import Orders
from sidecar.control.restarts import Restarts
from sidecar.core.breaker import BreakerRules
from sidecar.core.concurrency import Limit
from sidecar.core.delivery_schedule import Pacing, Schedule
from sidecar.core.events import Limits as EventLimits
from sidecar.core.model import Endpoint, Event, Query
from sidecar.daemon.current import Current, Secrets
from sidecar.daemon.heartbeat import Heartbeat
from sidecar.daemon.linked import Linked, Orderers
from sidecar.daemon.shared import Sharing, add_shared_gauges, sharing
from sidecar.daemon.status import add_gauges, document, sentence
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.resolver import Resolver
from sidecar.decisions.write_behind import WriteBehind
from sidecar.events.attempts import Attempts, Deliver
from sidecar.events.backlog import Backlog
from sidecar.events.delivery import Delivery
from sidecar.events.marks import Marks
from sidecar.events.outbox import Outbox
from sidecar.facts import BreakerChanged, Emit, Fact, broadcast
from sidecar.store import Store
from sidecar.store.events import Events
from sidecar.telemetry.health import Health
from sidecar.telemetry.logs import Log
from sidecar.telemetry.metrics import Metrics
from sidecar.telemetry.recent import Recent
from sidecar.web.admin import Admin
from sidecar.web.connections import Connections
from sidecar.web.control import Control
from sidecar.web.hosts import Hosts
from sidecar.web.keys import KeyHolders
from sidecar.web.link import Links
from sidecar.web.questions import Questions, WebhookSettings
from sidecar.web.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Parts:
    """The whole sidecar, at rest."""

    current: Current
    clock: Clock
    emit: Emit
    """Tells log, metrics, health and recent."""
    log: Log
    health: Health
    store: Store
    backend: Backend
    bulkhead: Bulkhead
    guards: Mapping[Endpoint, Guard]
    cache: Cache
    memory: WriteBehind
    backlog: Backlog
    delivery: Delivery
    outbox: Outbox
    resolver: Resolver
    questions: Questions
    webhooks: Webhooks
    links: Links
    admin: Admin
    orders: Orders
    restarts: Restarts
    control: Control
    key_holders: KeyHolders
    control_tls: ssl.SSLContext | None
    connections: Mapping[str, Connections]
    """By section of the config, and `admin socket`."""
    heartbeat: Heartbeat
    shared: Sharing | None


def build(
    settings: Settings,
    secrets: Secrets,
    source: Path | None,
    *,
    clock: Clock,
    boot: str,
    watchdog: float | None = None,
    notify: Callable[[str], None],
    output: TextIO | None = None,
) -> Parts:
    """`boot` is the kernel's name of this boot, `watchdog` and `notify` are systemd's; no `output`: standard output."""
    log = Log(settings.log.level, settings.log.format, output, clock)
    metrics, health, recent = Metrics(), Health(clock), Recent(clock)
    health.secret_advice = secrets.secret_advice
    emit = broadcast(health.observe, metrics.observe, recent.observe, log.observe)
    now = clock.wall()
    of_the_engine = secrets.shared_key, secrets.shared_password
    current = Current(settings, secrets.admin_tokens, now, now, settings, source, secrets.control_keys, of_the_engine)
    store = Store(settings.state_dir, clock, boot, emit)
    backend = Backend(secrets.target, clock)
    bulkhead = Bulkhead(Limit(settings.backend.max_in_flight), clock)
    meter = Meter(bulkhead, clock, emit)
    sender = Sender(backend, bulkhead, meter, clock)
    backlog, delivery, outbox = _events(settings.outbox, store.events, sender, clock, emit)
    informed = broadcast(emit, partial(_nudge, delivery))
    rules = breaker_rules(settings)
    guards = {
        endpoint: Guard(endpoint, backend, rules, bulkhead, meter, clock, random, informed)
        for endpoint in (Endpoint.ROOM_CREATED, Endpoint.VALIDATE_ACCESS)
    }
    cache = Cache(Limits(**settings.cache.model_dump()))
    memory = WriteBehind(cache, store.decisions)
    later = partial(_deliver_later, outbox, clock)
    resolver = Resolver(cache, guards, policies_from(settings), memory, later, clock, random, emit)
    questions = Questions(resolver, outbox, webhook_settings(settings, secrets), clock, token_hex, emit)
    hosts = Hosts(clock)
    webhooks, links = Webhooks(questions, hosts, clock, emit), Links(questions, hosts, clock, emit)
    metrics.watch_hosts(hosts.silence)
    heartbeat = Heartbeat(clock, watchdog, partial(sentence, health, cache, outbox), notify)
    orders = Orders(
        store.orders, resolver, Linked(links), outbox.accept, clock, token_hex, emit, ttl=settings.control.ttl
    )
    shared = sharing(settings, secrets, cache, resolver, orders, store.journal, clock, token_hex, emit)
    memory_of_all = None if shared is None else shared.memory
    health.of_others = lambda: (*links.impatient(), *hosts.gone(), *(memory_of_all.notes if memory_of_all else ()))
    facts = partial(document, current, recent, heartbeat, store, links, hosts, memory_of_all, clock)
    restarts = Restarts(store.open_rooms, outbox.accept, clock, emit)
    links.control = Orderers(orders, restarts)
    key_holders = KeyHolders(lambda: current.control_keys, clock, emit)
    admin = Admin(resolver, guards, outbox, health, metrics.expose, facts, clock)
    if shared is not None:
        add_shared_gauges(metrics.watch, shared.memory)
    metrics.watch("orders_waiting", lambda: orders.waiting)
    add_gauges(metrics.watch, backend, bulkhead, guards, cache, outbox, health, heartbeat, store, links, clock)
    return Parts(
        current=current,
        clock=clock,
        emit=emit,
        log=log,
        health=health,
        store=store,
        backend=backend,
        bulkhead=bulkhead,
        guards=guards,
        cache=cache,
        memory=memory,
        backlog=backlog,
        delivery=delivery,
        outbox=outbox,
        resolver=resolver,
        questions=questions,
        webhooks=webhooks,
        links=links,
        admin=admin,
        orders=orders,
        restarts=restarts,
        control=Control(orders, emit),
        key_holders=key_holders,
        control_tls=secrets.control_tls,
        connections={section: Connections(clock) for section in ("listen", "admin", "control", "admin socket")},
        heartbeat=heartbeat,
        shared=shared,
    )


def breaker_rules(settings: Settings) -> BreakerRules:
    """When the breakers open and close."""
    return BreakerRules(**settings.breaker.model_dump())


def webhook_settings(settings: Settings, secrets: Secrets) -> WebhookSettings:
    """What the listener for Prosody goes by."""
    domains = frozenset(domain.lower() for domain in settings.identity.anonymous_domains)
    listen, endpoints = settings.listen, settings.endpoints
    deadline = max(endpoints.room_created.deadline, endpoints.validate_access.deadline)
    return WebhookSettings(
        listen.prefix, domains, settings.log.identities, secrets.listen_tokens, listen.module_timeout, deadline
    )


def _events(
    settings: OutboxSettings, store: Events, deliver: Deliver, clock: Clock, emit: Emit
) -> tuple[Backlog, Delivery, Outbox]:
    limits = EventLimits(max_events=settings.max_events, max_age=settings.max_age)
    marks = Marks(store, limits)
    backlog = Backlog(store, marks, limits, clock, emit)
    delivery = Delivery(
        store,
        Attempts(deliver, clock, emit, settings.timeout),
        Schedule(Pacing(max_in_flight=settings.max_in_flight, cap=settings.backoff_cap)),
        marks,
        backlog,
        clock=clock,
        jitter=random,
        emit=emit,
        max_age=limits.max_age,
    )
    return backlog, delivery, Outbox(store, backlog, delivery, emit)


def _nudge(delivery: Delivery, fact: Fact) -> None:
    """What the joins find out about the backend is of use to the events: they need not wait for their own probe."""
    if isinstance(fact, BreakerChanged) and fact.state == "closed":
        delivery.nudge()


def _deliver_later(outbox: Outbox, clock: Clock, query: Query) -> None:
    """The backend was away when this room was made: tell it afterwards, before the room's other events."""
    key = query.key
    outbox.deliver_later(Event(key.endpoint, key.room, query.body, token_hex(16), clock.wall(), query.traceparent))
