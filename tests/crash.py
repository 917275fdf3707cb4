"""`make crash`: kills the sidecar with -9 again and again while people join, and starts it anew.

Nobody may ever get a wrong answer, it must always come back, and nothing may look like a defect in its log.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field

import aiohttp
from rich.console import Console

from tests.rig.pair import Pair

JOINERS = 8
BACK_WITHIN = 5.0


@dataclass(slots=True)
class Report:
    """What happened in all rounds."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    down: int = 0
    back_after: list[float] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not self.wrong and not self.defects and max(self.back_after, default=0.0) < BACK_WITHIN


async def keep_joining(pair: Pair, number: int, report: Report) -> None:
    """One joiner after the other, into open rooms and cancelled ones, until cancelled."""
    chance = random.Random(number)
    while True:
        room, let_in = chance.choice([("open", True), ("cancelled", False)])
        try:
            asked = await pair.ask(f"{room}-{chance.randrange(20)}", f"user-{chance.randrange(10)}@example.com")
        except (aiohttp.ClientError, TimeoutError):
            report.down += 1
            await asyncio.sleep(0.005)
            continue
        if asked.allowed is let_in:
            report.right += 1
        else:
            report.wrong.append(f"{room}: {asked}")


async def crash(kills: int, seed: int) -> Report:
    """Kills at random moments; returns what was seen."""
    report, chance = Report(), random.Random(seed)
    async with Pair.start({}) as pair:
        joiners = [asyncio.create_task(keep_joining(pair, number, report)) for number in range(JOINERS)]
        try:
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.05, 0.4))
                await pair.kill_sidecar()
                begun = time.monotonic()
                await pair.start_sidecar()
                report.back_after.append(time.monotonic() - begun)
            await asyncio.sleep(0.2)
        finally:
            for joiner in joiners:
                joiner.cancel()
            await asyncio.gather(*joiners, return_exceptions=True)
        report.defects = [line for line in pair.output().splitlines() if "Traceback" in line]
    return report


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="times that it is killed (default 30)")
    parser.add_argument("--seed", type=int, default=1, help="decides the moments (default 1)")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(f"{arguments.kills} kills, while {JOINERS} people keep joining ...")
    report = asyncio.run(crash(arguments.kills, arguments.seed))
    console.print(f"  right answers      {report.right}")
    console.print(f"  wrong answers      {len(report.wrong)}")
    console.print(f"  found it down      {report.down}")
    console.print(f"  back, at worst     {max(report.back_after) * 1000:.0f} ms after it was started again")
    for line in (report.wrong + report.defects)[:10]:
        console.print(f"  [red]{line}[/red]")
    return 0 if report.held else 1


if __name__ == "__main__":
    sys.exit(main())
