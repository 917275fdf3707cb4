"""Facts -> Prometheus metrics. Labels come from small fixed sets: a room or a user is never a label."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import accumulate, product

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from sidecar import __version__
from sidecar.core.concurrency import Cause
from sidecar.core.model import Answer, Endpoint, Kind, Source
from sidecar.core.orders import Verb
from sidecar.facts import (
    Asked,
    BreakerChanged,
    Crashed,
    EventAccepted,
    EventDelivered,
    EventParked,
    Fact,
    Intruder,
    LimitChanged,
    LinkIgnored,
    OrderEnded,
    OrderTaken,
    Reloaded,
    Resolved,
    SharedAsked,
)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


GAUGES = {
    "breaker_state": "0 closed, 1 half-open, 2 open",
    "backend_calls_under_way": "Calls to the backend that hold a place now",
    "backend_calls_waiting": "Calls of joins that wait for a place",
    "backend_limit": "Calls to the backend that may be under way now; it follows the backend",
    "cache_entries": "Answers in memory",
    "loop_lag_seconds": "Seconds by which the event loop was late a moment ago",
    "serving": "1 while questions of Prosody are answered; 0 while starting or stopping",
    "degraded": "Reasons why /readyz says degraded",
    "degraded_by": "The same by kind: secret, backend, breaker, disk, outbox, config, shared",
    "backend_certificate_end_seconds": "Unix time at which the backend's certificate ends; +Inf without TLS",
    "useless_in_an_outage": "1: the last answer of this endpoint must not be cached, and helps nobody in an outage",
    "outbox_pending": "Events not delivered yet",
    "orders_waiting": "Orders that no module has carried out yet",
    "outbox_parked": "Events the backend will not take",
    "links": "Modules of Prosody whose link is up",
    "module_silent_seconds": "Seconds since the module of a MUC component was heard; 0 while its link is up",
    "shared_in_touch": "1 while this sidecar knows what the others say",
    "shared_members": "Sidecars that share the memory, as the engine has seen them in ten seconds",
    "shared_strangers": "Those of them that have another shared.key_file or other shared.muc_domains",
    "shared_replicas": "Replicas of the engine",
    "shared_behind": "Messages of the others that were not read yet at the last read",
    "shared_unsaid": "Denies and changes that the engine has not acknowledged yet",
    "files_set_aside": "Files in state_dir that could not be used and were renamed",
    "outbox_oldest_seconds": "Age of the oldest event not delivered yet",
}
"""The gauges and their help texts; `daemon/status.py` connects them with what they read."""


_FATES = {EventAccepted: "accepted", EventDelivered: "delivered", EventParked: "parked"}

_OUTCOMES = ("replied", "rejected", "misconfigured", "unavailable", "unreadable")
_BREAKER_STATES = ("open", "closed", "open for some users")
_SHARED = ("hit", "suspect", "outdated", "miss", "failed", "forged")
_RESULTS = ("taken", "done", "absent", "failed", "expired")
_ANSWERED_BY = tuple(source for source in Source if source is not Source.OUTBOX)


class _Requests(Collector):
    """Counts each request in plain numbers, which become metrics when Prometheus asks. The library's own counters are
    made for many threads and take four times as long: a tenth of a decision from the cache."""

    def __init__(self) -> None:
        self._answers: defaultdict[tuple[str, str, bool], int] = defaultdict(int)
        """By endpoint, source, and whether the answer lets a user in."""
        self._rooms_refused = 0
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._buckets: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(_SECONDS) + 1))
        for endpoint in Endpoint:
            for source in (*((Source.OUTBOX,) if endpoint.kind is Kind.EVENT else _ANSWERED_BY), "problem"):
                self._answers[endpoint, source, False] = 0
            self._buckets[endpoint] = [0] * (len(_SECONDS) + 1)

    def note(self, endpoint: str, answer: Answer | None, seconds: float) -> None:
        """Count one request; without an answer it had a problem."""
        source = "problem" if answer is None else answer.source
        self._answers[endpoint, source, answer is not None and answer.allowed is True] += 1
        if endpoint == Endpoint.ROOM_CREATED and answer is not None and answer.refuses_room:
            self._rooms_refused += 1
        self._seconds[endpoint] += seconds
        self._buckets[endpoint][bisect_left(_SECONDS, seconds)] += 1

    def collect(self) -> Iterable[Metric]:
        """The counts as metrics."""
        text = "Requests of Prosody by where the answer came from"
        answers = CounterMetricFamily("prosody_sidecar_requests", text, labels=["endpoint", "source"])
        by_source: defaultdict[tuple[str, str], int] = defaultdict(int)
        for (endpoint, source, _), count in self._answers.items():
            by_source[endpoint, source] += count
        for labels, count in by_source.items():
            answers.add_metric(labels, count)
        text = "Seconds from the head of a request to its answer"
        seconds = HistogramMetricFamily("prosody_sidecar_request_seconds", text, labels=["endpoint"])
        limits = [*map(str, _SECONDS), "+Inf"]
        for endpoint, counts in self._buckets.items():
            up_to = list(zip(limits, accumulate(counts), strict=True))
            seconds.add_metric([endpoint], up_to, self._seconds[endpoint])
        text = "Rooms that nobody could open, because the backend gave no config and none was cached"
        rooms = CounterMetricFamily("prosody_sidecar_rooms_refused", text, value=self._rooms_refused)
        return answers, self._joins(), rooms, seconds

    def _joins(self) -> Metric:
        text = "Decisions about joins: who is let in (allow) or refused (deny), and where the decision came from"
        joins = CounterMetricFamily("prosody_sidecar_joins", text, labels=["decision", "source"])
        for source in _ANSWERED_BY:
            for decision, lets_in in (("allow", True), ("deny", False)):
                joins.add_metric([decision, source], self._answers.get((Endpoint.VALIDATE_ACCESS, source, lets_in), 0))
        return joins


class _Silence(Collector):
    """Its labels are known only when Prometheus asks."""

    def __init__(self, silence: Callable[[], Mapping[str, float]]) -> None:
        self._silence = silence

    def collect(self) -> Iterable[Metric]:
        """A series for each host."""
        name = "module_silent_seconds"
        family = GaugeMetricFamily(f"prosody_sidecar_{name}", GAUGES[name], labels=["host"])
        for host, seconds in self._silence().items():
            family.add_metric([host], seconds)
        return (family,)


class Metrics:
    """An observer that counts."""

    def __init__(self) -> None:
        """Every metric is named prosody_sidecar_*."""
        self._registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._requests = _Requests()
        self._registry.register(self._requests)
        self._asked = self._counter("backend_requests", "Calls to the backend by outcome", "outcome")
        self._backend_seconds = Histogram(
            "prosody_sidecar_backend_seconds",
            "Duration of a call to the backend in seconds",
            ["endpoint"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._retries = self._counter("backend_retries", "Calls to the backend that were retries")
        self._breaker_changes = self._counter(
            "breaker_moves", "Times a breaker opened, for all or for some users, or closed", "state"
        )
        self._limit_changes = Counter(
            "prosody_sidecar_backend_limit_changes",
            "Changes of backend_limit by cause",
            ["cause"],
            registry=self._registry,
        )
        self._events = self._counter("events", "Events that were accepted, delivered, parked", "fate")
        self._orders = Counter(
            "prosody_sidecar_orders",
            "Orders of the meeting service and of operators: taken, done, absent, failed, expired",
            ["verb", "result"],
            registry=self._registry,
        )
        self._intruders = Counter(
            "prosody_sidecar_control_refused",
            "Requests to the control listener without a valid token or signature",
            registry=self._registry,
        )
        self._reloads = Counter("prosody_sidecar_reloads", "Reloads by result", ["result"], registry=self._registry)
        self._shared = Counter(
            "prosody_sidecar_shared_reads",
            "Reads of the shared memory by outcome",
            ["outcome"],
            registry=self._registry,
        )
        self._ignored = Counter(
            "prosody_sidecar_link_messages_ignored", "Messages of a module that mean nothing", registry=self._registry
        )
        self._defects = Counter(
            "prosody_sidecar_defects",
            "Defects of this program that were caught; should stay 0",
            registry=self._registry,
        )
        self._begin_at_zero()
        build = Gauge("prosody_sidecar_build_info", "The running version", ["version"], registry=self._registry)
        build.labels(__version__).set(1)

    def _begin_at_zero(self) -> None:
        """Make the series: Prometheus sees an increase only if there was a value before."""
        for endpoint in Endpoint:
            self._backend_seconds.labels(endpoint)
            self._retries.labels(endpoint)
            for outcome in _OUTCOMES:
                self._asked.labels(endpoint, outcome)
            if endpoint.kind is not Kind.EVENT:
                for state in _BREAKER_STATES:
                    self._breaker_changes.labels(endpoint, state)
            if endpoint is not Endpoint.VALIDATE_ACCESS:
                for fate in _FATES.values():
                    self._events.labels(endpoint, fate)
        for cause in Cause:
            self._limit_changes.labels(cause)
        for verb, result in product(Verb, _RESULTS):
            self._orders.labels(verb, result)
        for result in ("applied", "refused"):
            self._reloads.labels(result)
        for outcome in _SHARED:
            self._shared.labels(outcome)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"prosody_sidecar_{name}", text, ["endpoint", *labels], registry=self._registry)

    def watch(self, name: str, read: Callable[[], float], **labels: str) -> None:
        """Add a gauge of `GAUGES`, read when Prometheus asks. Calls with one name must have the same label names."""
        full_name = f"prosody_sidecar_{name}"
        gauge = self._gauges.get(full_name)
        if gauge is None:
            gauge = Gauge(full_name, GAUGES[name], list(labels), registry=self._registry)
            self._gauges[full_name] = gauge
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def watch_hosts(self, silence: Callable[[], Mapping[str, float]]) -> None:
        """Add the gauge of the modules; `silence` gives their seconds by host, of which there are few."""
        self._registry.register(_Silence(silence))

    def observe(self, fact: Fact) -> None:  # noqa: PLR0912 - one case for each kind of fact
        """Count one fact."""
        match fact:
            case Resolved():
                self._requests.note(fact.endpoint, fact.answer, fact.seconds)
            case Asked():
                self._asked.labels(fact.endpoint, fact.outcome).inc()
                self._backend_seconds.labels(fact.endpoint).observe(fact.seconds)
                if fact.retry:
                    self._retries.labels(fact.endpoint).inc()
            case BreakerChanged():
                self._breaker_changes.labels(fact.endpoint, fact.state).inc()
            case LimitChanged():
                self._limit_changes.labels(fact.cause).inc()
            case EventAccepted() | EventDelivered() | EventParked():
                self._events.labels(fact.endpoint, _FATES[type(fact)]).inc()
            case OrderTaken() | OrderEnded():
                self._orders.labels(fact.verb, fact.result if isinstance(fact, OrderEnded) else "taken").inc()
            case Intruder():
                self._intruders.inc()
            case Reloaded():
                self._reloads.labels("refused" if fact.problems else "applied").inc()
            case SharedAsked():
                self._shared.labels(fact.outcome).inc()
            case LinkIgnored():
                self._ignored.inc()
            case Crashed():
                self._defects.inc()
            case _:
                pass

    def expose(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
