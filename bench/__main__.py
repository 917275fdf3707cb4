"""`make bench`: how many decisions a second the sidecar gives, and how fast, by where they come from.

The client is Python too and shares the machine with both programs, so the figures are what this machine does
at least. The bare row asks the demo backend directly, with the same client: read the others beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from rich.console import Console
from rich.table import Table

from sidecar import __version__
from tests.rig.pair import SECRET, Pair

AT_ONCE = 16
ROOMS = 50
SETTINGS = {
    "endpoints": {"validate-access": {"allow": {"fresh": 600, "stale_while_revalidate": 0}}},
    "log": {"level": "warning"},
}
NEVER_FRESH = {
    "endpoints": {"validate-access": {"allow": {"fresh": 0, "stale_while_revalidate": 0}}},
    "log": {"level": "warning"},
}


@dataclass(frozen=True, slots=True)
class Case:
    """One way to an answer."""

    name: str
    bare: bool = False
    fresh: bool = False
    backend_killed: bool = False


CASES = (
    Case("bare backend", bare=True),
    Case("asked through the sidecar"),
    Case("from memory, fresh", fresh=True),
    Case("from memory, backend killed", backend_killed=True),
)


@dataclass(frozen=True, slots=True)
class Figures:
    per_second: float
    p50: float
    p99: float


@asynccontextmanager
async def ready(case: Case) -> AsyncIterator[str]:
    """Brings everything into the state of this case; gives the URL to ask."""
    async with Pair.start(SETTINGS if case.fresh else NEVER_FRESH) as pair:
        for number in range(ROOMS):
            assert (await pair.ask(f"room-{number}", "user@example.com")).allowed is True
        if case.backend_killed:
            await pair.kill_backend()
        port = pair.backend_port if case.bare else pair.listen
        yield f"http://127.0.0.1:{port}/webhooks/jitsi/validate-access"


async def measure(case: Case, seconds: float) -> Figures:
    async with ready(case) as url:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, headers={"X-Webhook-Secret": SECRET}) as session:
            times: list[float] = []
            begun = time.perf_counter()

            async def keep_asking(number: int) -> None:
                while (asked := time.perf_counter()) < begun + seconds:
                    number = (number + 1) % ROOMS
                    room = f"room-{number}"
                    body = {
                        "roomName": room,
                        "roomJid": f"{room}@conference.example.com",
                        "userJid": "user@example.com",
                        "timestamp": 1,
                    }
                    async with session.post(url, json=body) as response:
                        answer = await response.json()
                    assert answer["allowed"] is True, answer
                    times.append(time.perf_counter() - asked)

            await asyncio.gather(*(keep_asking(number * 3) for number in range(AT_ONCE)))
            took = time.perf_counter() - begun
    times.sort()
    return Figures(len(times) / took, times[len(times) // 2], times[len(times) * 99 // 100])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="of all measurements in turn (default 3)")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(f"prosody-sidecar {__version__}, Python {platform.python_version()}, {os.cpu_count()} cores")
    seen: dict[str, list[Figures]] = {case.name: [] for case in CASES}
    for number in range(arguments.rounds):
        for case in CASES:
            console.print(f"round {number + 1} of {arguments.rounds}: {case.name} ...")
            seen[case.name].append(asyncio.run(measure(case, arguments.seconds)))
    table = Table(title=f"Decisions, {AT_ONCE} at once; medians of {arguments.rounds}", title_justify="left")
    for heading in ("answered", "a second", "to bare", "p50", "p99"):
        table.add_column(heading, justify="left" if heading == "answered" else "right")
    bare = statistics.median(figures.per_second for figures in seen["bare backend"])
    for name, rounds in seen.items():
        per_second = statistics.median(figures.per_second for figures in rounds)
        p50, p99 = (statistics.median(getattr(f, which) for f in rounds) * 1000 for which in ("p50", "p99"))
        table.add_row(name, f"{per_second:.0f}", f"{per_second / bare:.2f}", f"{p50:.1f} ms", f"{p99:.1f} ms")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
