"""Each query of the dashboard, asked of a real Prometheus that has scraped a real daemon on a bad day."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
from pathlib import Path

from tests.rig.answers import deny, reply
from tests.rig.backend import Backend
from tests.rig.faults import Fault
from tests.rig.module import Module
from tests.rig.prometheus import Watched, prometheus
from tests.rig.sidecar import ROOT, Sidecar

PANELS = json.loads((ROOT / "config" / "grafana-dashboard.json").read_text())["panels"]
SETTINGS = {
    "breaker": {"open_for": 1},
    "outbox": {"backoff_cap": 0.5},
    "endpoints": {"validate-access": {"allow": {"fresh": 0, "stale_while_revalidate": 0}}},
}


def test_the_dashboard_is_current() -> None:
    subprocess.run(["python3", "tools/dashboard.py", "--check"], cwd=ROOT, check=True)


async def test_each_graph_shows_what_its_title_says(tmp_path: Path) -> None:
    async with (
        Backend() as backend,
        Sidecar.start(backend.url, {**SETTINGS, "state_dir": str(tmp_path / "state")}) as sidecar,
        Module({"status": "done", "kicked": 1}).linked(sidecar),
        prometheus(sidecar.config["admin"]["port"], tmp_path) as watched,
    ):
        await a_bad_day(backend, sidecar)
        await asyncio.sleep(1.5)  # two scrapes
        for panel in PANELS:
            values = [await shown(watched, target) for target in panel["targets"]]
            assert all(values), f"a line of {panel['title']!r} is empty"
            highest = max(value for line in values for value in line.values())
            assert highest > 0 or panel["title"] == "Breaker", panel["title"]
        joins = await shown(watched, PANELS[1]["targets"][0])
        assert {name for name, value in joins.items() if value} == {
            *("allow backend", "allow stale", "deny backend", "deny policy"),
        }


async def shown(watched: Watched, target: dict[str, str]) -> dict[str, float]:
    """The lines of a graph that have a value, by their legends."""
    query = target["expr"].replace("$__rate_interval", "30s").replace("$instance", ".*")
    found = {}
    for labels, value in await watched.ask(query):
        legend = target["legendFormat"]
        for name in re.findall(r"\{\{(\w+)\}\}", legend):
            legend = legend.replace(f"{{{{{name}}}}}", labels[name])
        if not math.isnan(value):
            found[legend] = value
    return found


async def a_bad_day(backend: Backend, sidecar: Sidecar) -> None:
    """Joins and events while all is well, then without the backend; an order; an event that is parked."""
    backend.on("validate-access", deny("No"), room="closed")
    for n in range(10):
        await sidecar.decides("standup", f"user{n}@example.org")
        await sidecar.decides("closed", f"user{n}@example.org")
        await sidecar.configures("standup")
        await sidecar.event("user-joined", "standup", f"key-{n}")
    await sidecar.command("kick", "standup", "user9@example.org")
    backend.on("user-joined", reply({}, status=400))
    await sidecar.event("user-joined", "standup", "key-parked")
    await sidecar.until_logged("event parked")
    await backend.goes(Fault.ERROR_500)
    for n in range(5):
        await sidecar.decides("standup", f"user{n}@example.org")
        await sidecar.decides("standup", f"stranger{n}@example.org")
    backend.on("user-joined", reply({}, status=503))
    await sidecar.event("user-joined", "standup", "key-waiting")
