"""`make soak`: a sidecar for twenty minutes, while everything around it goes wrong at random.

People join who are invited, who are not, and who were until a moment ago; rooms send events. In between, from a seed
that is printed: kill -9, restarts, reloads of good and of bad configs, a wall clock that is set, a full disk, and
failures of the backend. Each answer is compared with a model. The last tenth of the time is calm.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from tests.soak import report
from tests.soak.run import Result, soak


def table(result: Result) -> Table:
    """What happened, and what of it must not."""
    model = result.model
    figures = {
        "slowest start, s": f"{model.slowest_start:.1f}",
        "events acknowledged": str(sum(model.accepted.values())),
    }
    missing = sum((model.accepted - model.arrived).values())
    must_be_none = {
        "forbidden allows": len(model.forbidden),
        "invited users refused while the backend was well": len(model.refused),
        "events lost, or out of order in their room": missing + len(model.lost),
        "defects": len(model.defects),
    }
    return report.table(model.counts, figures, must_be_none, result.flat)


def run(arguments: argparse.Namespace) -> tuple[Table, list[str]]:
    logging.getLogger("aiohttp.server").disabled = True  # the backend's: who is killed hangs up on it
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        result = asyncio.run(soak(60.0 * arguments.minutes, arguments.seed, Path(folder)))
    return table(result), result.problems


if __name__ == "__main__":
    sys.exit(report.main(argparse.ArgumentParser(prog="make soak", description=__doc__), 20.0, run))
