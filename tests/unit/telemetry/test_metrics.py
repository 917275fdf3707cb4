"""What Prometheus gets."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import Asked, BreakerChanged, Crashed, Resolved
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


def test_a_call_is_counted_by_endpoint_and_outcome() -> None:
    metrics = Metrics()
    metrics.observe(Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1, 500, retry=True))
    found = samples(metrics)
    labels = (("endpoint", "validate-access"), ("outcome", "unavailable"))
    assert found["prosody_sidecar_backend_requests_total", labels] == 1
    assert found["prosody_sidecar_backend_retries_total", (("endpoint", "validate-access"),)] == 1


def test_no_name_of_a_room_or_user_becomes_a_series() -> None:
    metrics = Metrics()
    metrics.observe(Resolved("validate-access", 200, 0.1, None, "secret-room", "alice@example.com"))
    metrics.observe(Asked(Endpoint.VALIDATE_ACCESS, "unavailable", 0.1, 500, "secret-room", "secret-room"))
    metrics.observe(BreakerChanged(Endpoint.VALIDATE_ACCESS, "open", "secret-room"))
    text = metrics.expose().decode()
    assert "secret-room" not in text
    assert "alice" not in text


def test_every_name_begins_with_the_products() -> None:
    metrics = Metrics()
    metrics.watch("breaker_state", lambda: 2.0, endpoint="validate-access")
    metrics.observe(Crashed("call", LookupError()))
    found = samples(metrics)
    assert found["prosody_sidecar_breaker_state", (("endpoint", "validate-access"),)] == 2
    assert found["prosody_sidecar_defects_total", ()] == 1
    assert all(name.startswith(("prosody_sidecar_", "process_", "python_")) for name, _ in found)
