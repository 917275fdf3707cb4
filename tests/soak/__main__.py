"""`make soak`: a sidecar for twenty minutes, while everything around it goes wrong at random.

People join who are invited, who are not, and who were until a moment ago; rooms send events. In between, from a seed
that is printed: kill -9, restarts, reloads of good and of bad configs, a wall clock that is set, a full disk, and
failures of the backend. Each answer is compared with a model. The last tenth of the time is calm.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.soak.run import Result, soak


def table(result: Result) -> Table:
    """What happened, and what of it must not."""
    model = result.model
    it = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "seen", "must be"):
        it.add_column(name, justify="left" if not name else "right")
    for name in sorted(model.counts):
        it.add_row(name, str(model.counts[name]), "")
    it.add_row("slowest start, s", f"{model.slowest_start:.1f}", "")
    it.add_row("events acknowledged", str(sum(model.accepted.values())), "")
    missing = sum((model.accepted - model.arrived).values())
    must_be_none = {
        "forbidden allows": len(model.forbidden),
        "invited users refused while the backend was well": len(model.refused),
        "events lost, or out of order in their room": missing + len(model.lost),
        "defects": len(model.defects),
    }
    for name, count in must_be_none.items():
        it.add_row(name, _coloured(str(count), good=not count), "0")
    for flat in result.flat:
        highest = f"{flat.first:.1f} at first, {flat.last:.1f} at last"
        it.add_row(flat.name, _coloured(highest, good=flat.held), "flat")
    return it


def _coloured(text: str, *, good: bool) -> str:
    return f"[{'green' if good else 'red'}]{text}[/]"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (default 20)")
    parser.add_argument("--seed", type=int, default=None, help="decides what happens (default: another one each time)")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if arguments.seed is None else arguments.seed
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(f"{arguments.minutes:g} minutes with seed {seed} ...")
    logging.getLogger("aiohttp.server").disabled = True  # the backend's: who is killed hangs up on it
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result = asyncio.run(soak(60.0 * arguments.minutes, seed, Path(folder)))
    console.print(table(result))
    for line in result.problems[:20]:
        console.print(line, style="red", markup=False)
    console.print(f"seed {seed}, {time.monotonic() - begun:.0f} s: {'held' if not result.problems else 'DID NOT HOLD'}")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
