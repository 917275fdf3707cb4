"""A real Prometheus that scrapes one daemon and evaluates the shipped alerts, with a minute as a second.

    async with prometheus(sidecar.config["admin"]["port"], folder) as watched:
        await watched.until({"SidecarTurnsPeopleAway"})

The expressions are those of config/prometheus-alerts.yaml; only ranges, `for` and the silence of a module are shorter.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import yaml

from tests.rig.ports import free_port
from tests.rig.sidecar import ROOT

ALERTS = ROOT / "config" / "prometheus-alerts.yaml"
SCRAPE_EVERY = 0.5
SHORTEST_RANGE = 3
"""Seconds; a range needs two scrapes, also on a busy machine."""

_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CONFIG = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: [{rules}]
scrape_configs:
  - job_name: meetings
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def _as_seconds(duration: re.Match[str]) -> str:
    seconds = int(duration[2]) * _UNIT[duration[3]] // 60
    return f"{duration[1]}{max(seconds, SHORTEST_RANGE if duration[1] == '[' else 1)}s"


def hurried(rules: str) -> str:
    """The rules with each range, each `for` and the silence of a module sixty times as short."""
    rules = re.sub(r"(silent_seconds < )(\d+)", lambda found: f"{found[1]}{int(found[2]) // 60}", rules)
    return re.sub(r"(\[|for: )(\d+)([smhd])\b", _as_seconds, rules)


class Watched:
    """What Prometheus knows of the daemon."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        async with self._session.get(f"{self._address}/api/v1/alerts") as response:
            alerts = (await response.json())["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """What a query gives now: the labels and the value of each series."""
        async with self._session.get(f"{self._address}/api/v1/query", params={"query": query}) as response:
            document = await response.json()
        assert document["status"] == "success", document
        return [(each["metric"], float(each["value"][1])) for each in document["data"]["result"]]

    async def is_up(self) -> bool:
        """Whether it has scraped the daemon."""
        return bool(await self.ask("up == 1"))

    async def until(self, wanted: set[str], within: float = 40.0) -> float:
        """Wait until all of these fire, or until none fires if none is wanted. Seconds until then."""
        clock, fires = asyncio.get_running_loop().time, set[str]()
        begun = clock()
        while clock() - begun < within:
            fires = await self.firing()
            if fires >= wanted if wanted else not fires:
                return clock() - begun
            await asyncio.sleep(SCRAPE_EVERY / 2)
        raise AssertionError(f"wanted {wanted or 'no alert'}, and {fires or 'none'} fires")

    async def stays(self, wanted: set[str], seconds: float = 4.0) -> None:
        """These alerts and no others fire during this time."""
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        while clock() < until:
            assert await self.firing() == wanted
            await asyncio.sleep(SCRAPE_EVERY / 2)


@asynccontextmanager
async def prometheus(port: int, folder: Path) -> AsyncIterator[Watched]:
    """One that has scraped the daemon on this port, where there is one, and keeps its data in the folder."""
    rules = folder / "alerts.yaml"
    rules.write_text(hurried(ALERTS.read_text()))
    (folder / "prometheus.yaml").write_text(_CONFIG.format(rules=rules, port=port))
    assert yaml.safe_load(rules.read_text())
    own_port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus", f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{own_port}",
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            watched = Watched(session, f"http://127.0.0.1:{own_port}")
            async with asyncio.timeout(30):
                while not await _is_ready(watched):
                    assert process.returncode is None, (folder / "prometheus.log").read_text()
                    await asyncio.sleep(0.1)
            yield watched
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _is_ready(watched: Watched) -> bool:
    try:
        return await watched.is_up()
    except (aiohttp.ClientError, AssertionError):
        return False
