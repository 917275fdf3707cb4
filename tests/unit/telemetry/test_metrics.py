"""What Prometheus gets."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import Asked, BreakerChanged, Crashed, EventParked, OrderTaken, Reloaded, Resolved, SharedAsked
from sidecar.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.expose().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_a_request_is_counted_by_endpoint_and_source() -> None:
    metrics = Metrics()
    metrics.observe(Resolved("validate-access", 200, 0.1, Answer(200, b"", Source.STALE)))
    metrics.observe(Resolved("validate-access", 400, 0.1, problem="not JSON"))
    found = samples(metrics)
    for source in ("stale", "problem"):
        labels = (("endpoint", "validate-access"), ("source", source))
        assert found["prosody_sidecar_requests_total", labels] == 1
    assert found["prosody_sidecar_request_seconds_count", (("endpoint", "validate-access"),)] == 2


@pytest.mark.parametrize(("status", "refused"), [(503, 1), (200, 0)], ids=["refuse", "default"])
def test_a_room_that_nobody_could_open_is_counted(status: int, refused: int) -> None:
    metrics = Metrics()
    series = ("prosody_sidecar_rooms_refused_total", ())
    assert samples(metrics)[series] == 0
    metrics.observe(Resolved("room-created", status, 0.1, Answer(status, b"", Source.POLICY)))
    assert samples(metrics)[series] == refused


def test_a_call_is_counted_by_endpoint_and_outcome() -> None:
    metrics = Metrics()
    metrics.observe(Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1, 500, retry=True))
    found = samples(metrics)
    labels = (("endpoint", "validate-access"), ("outcome", "unavailable"))
    assert found["prosody_sidecar_backend_requests_total", labels] == 1
    assert found["prosody_sidecar_backend_retries_total", (("endpoint", "validate-access"),)] == 1


@pytest.mark.parametrize("outcome", ["hit", "suspect", "outdated", "miss", "failed", "forged"])
def test_a_read_of_the_shared_memory_is_counted_by_outcome(outcome: str) -> None:
    metrics = Metrics()
    series = ("prosody_sidecar_shared_reads_total", (("outcome", outcome),))
    assert samples(metrics)[series] == 0
    metrics.observe(SharedAsked(outcome))
    assert samples(metrics)[series] == 1


def test_no_name_of_a_room_or_user_becomes_a_series() -> None:
    metrics = Metrics()
    metrics.observe(Resolved("validate-access", 200, 0.1, None, "secret-room", "alice@example.com"))
    metrics.observe(Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1, 500, "secret-room", "secret-room"))
    metrics.observe(BreakerChanged(Endpoint.VALIDATE_ACCESS, "open", "secret-room"))
    text = metrics.expose().decode()
    assert "secret-room" not in text
    assert "alice" not in text


def test_the_silence_of_each_component_is_a_series() -> None:
    metrics = Metrics()
    metrics.watch_hosts(lambda: {"conference.a": 0.0, "conference.b": 7.0})
    found = samples(metrics)
    assert found["prosody_sidecar_module_silent_seconds", (("host", "conference.b"),)] == 7


def test_every_name_begins_with_the_products() -> None:
    metrics = Metrics()
    metrics.watch("breaker_state", lambda: 2.0, endpoint="validate-access")
    metrics.observe(Crashed("call", LookupError()))
    found = samples(metrics)
    assert found["prosody_sidecar_breaker_state", (("endpoint", "validate-access"),)] == 2
    assert found["prosody_sidecar_defects_total", ()] == 1
    assert all(name.startswith(("prosody_sidecar_", "process_", "python_")) for name, _ in found)


@pytest.mark.parametrize(("allowed", "decision"), [(True, "allow"), (False, "deny"), (None, "deny")])
def test_a_join_counts_as_allowed_or_denied(allowed: bool | None, decision: str) -> None:
    metrics = Metrics()
    metrics.observe(Resolved("validate-access", 200, 0.1, Answer(200, b"", Source.POLICY, allowed)))
    joins = {
        labels: value for (name, labels), value in samples(metrics).items() if name == "prosody_sidecar_joins_total"
    }
    assert {labels for labels, value in joins.items() if value} == {(("decision", decision), ("source", "policy"))}


def test_what_alerts_ask_for_is_there_with_0_before_anything_has_happened() -> None:
    metrics = Metrics()
    before = samples(metrics)
    for fact in (
        Resolved("validate-access", 200, 0.1, Answer(200, b"", Source.POLICY, allowed=False)),
        Asked(Endpoint.VALIDATE_ACCESS, "misconfigured", 0.1, 401, retry=True),
        Asked(Endpoint.ROOM_CREATED, "unreadable", 0.1, 200),
        BreakerChanged(Endpoint.VALIDATE_ACCESS, "open"),
        EventParked(Endpoint.USER_JOINED, "standup", 400, "no"),
        OrderTaken("1", "kick", "standup", "root"),
        Reloaded(problems=("wrong",)),
        Crashed("call", LookupError()),
    ):
        metrics.observe(fact)
    changed = {
        series
        for series, value in samples(metrics).items()
        if series[0].startswith("prosody_sidecar_") and before.get(series) != value
    }
    new = {series for series in changed if series not in before and not series[0].endswith("_created")}
    assert len(changed) > 12
    assert new == set()
