"""The metrics of a running sidecar, and what is built on them, by promtool's own judgement."""

import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar.telemetry.metrics import GAUGES
from tests.rig.backend import Backend
from tests.rig.sidecar import ROOT, Sidecar

ALERTS = ROOT / "config" / "prometheus-alerts.yaml"
DASHBOARD = ROOT / "config" / "grafana-dashboard.json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exposed() -> AsyncIterator[str]:
    """What a sidecar exposes that has been asked once."""
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        await sidecar.decides("standup", "ann@example.org")
        yield (await sidecar.get("/metrics")).body.decode()


def promtool(*command: str, stdin: str = "") -> str:
    done = subprocess.run(["promtool", *command], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def families(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (prosody_sidecar_\w+)", text, re.M))


def used_in(text: str) -> set[str]:
    names = re.findall(r"\bprosody_sidecar_\w+", text)
    return {re.sub(r"_bucket$", "", name) for name in names}


def test_the_metrics_are_well_formed(exposed: str) -> None:
    assert promtool("check", "metrics", stdin=exposed) == ""


def test_every_metric_says_what_it_is(exposed: str) -> None:
    helped = dict(re.findall(r"^# HELP (\S+) (.*)$", exposed, re.M))
    assert [name for name in families(exposed) if len(helped.get(name, "")) < 15] == []


def test_the_alerts_are_sound_and_fire_when_they_should(tmp_path: Path) -> None:
    promtool("check", "rules", str(ALERTS))
    night = (ROOT / "tests" / "system" / "alerts-test.yaml").read_text().replace("[ALERTS]", f"[{ALERTS}]")
    (tmp_path / "night.yaml").write_text(night)
    promtool("test", "rules", str(tmp_path / "night.yaml"))


ONLY_WHERE_A_MEMORY_IS_SHARED = {f"prosody_sidecar_{name}" for name in GAUGES if name.startswith("shared_")}


@pytest.mark.parametrize("file", [ALERTS, DASHBOARD], ids=lambda file: file.name)
def test_no_alert_and_no_graph_asks_for_what_is_not_there(exposed: str, file: Path) -> None:
    there = families(exposed) | {f"{name}_total" for name in families(exposed)} | ONLY_WHERE_A_MEMORY_IS_SHARED
    assert used_in(file.read_text()) - there == set()
