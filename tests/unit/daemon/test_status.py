"""What the daemon says of itself: a sentence, a document, gauges."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sidecar.daemon.build import Parts
from sidecar.daemon.status import sentence
from sidecar.facts import DiskChanged
from tests.unit.daemon.builders import URL, a_sidecar


def said(parts: Parts) -> str:
    return sentence(parts.health, parts.cache, parts.outbox)


def test_the_sentence_says_how_it_is() -> None:
    parts = a_sidecar()
    assert said(parts) == "Stopping: answering what is under way"
    parts.health.serving = True
    assert said(parts) == "Well: 0 answers remembered, 0 events on their way"
    parts.emit(DiskChanged("outbox.db", usable=False, reason="full"))
    assert said(parts) == "Degraded: disk: outbox.db: full"
    parts.emit(DiskChanged("decisions.db", usable=False, reason="x" * 400))
    assert said(parts).endswith("(and 1 more: prosody-sidecar status)")
    parts.emit(DiskChanged("outbox.db", usable=True))
    assert len(said(parts)) == len("Degraded: ") + 300


async def test_the_status_names_config_backend_and_state(aiohttp_client: Any) -> None:
    client = await aiohttp_client(a_sidecar().admin.app())
    document = await (await client.get("/status")).json()
    assert (document["config"], document["backend"]) == ("built in", URL)
    assert document["state_dir"] == "/var/lib/prosody-sidecar"
    assert document["memory_bytes"] > 1_000_000
    assert document["uptime_seconds"] >= 0


@pytest.mark.parametrize(
    "gauge",
    [
        'breaker_state{endpoint="room-created"} 0',
        'breaker_state{endpoint="validate-access"} 0',
        'backend_calls_under_way{endpoint="validate-access"} 0',
        'cache_entries{verdict="allow"} 0',
        "loop_lag_seconds 0",
        "degraded 1",
        'useless_in_an_outage{endpoint="validate-access"} 0',
        "outbox_pending 0",
        "outbox_parked 0",
        "outbox_oldest_seconds 0",
        "files_set_aside 0",
    ],
)
async def test_prometheus_reads_the_gauges(aiohttp_client: Any, gauge: str) -> None:
    parts = a_sidecar()
    parts.emit(DiskChanged("outbox.db", usable=False, reason="full"))
    client = await aiohttp_client(parts.admin.app())
    text = await (await client.get("/metrics")).text()
    assert re.search(rf"^prosody_sidecar_{re.escape(gauge)}(\.0)?$", text, re.M)
