"""`make bench`: measures all programs in one run on one machine, in several rounds of each part.

After each part, its figures replace those of its last run in RESULTS.md (between two marks), results.json (each
sample) and the charts beside them. A part that fails, or a program in it, does not stop the others. A quick run prints
the result, and writes it only with `--into` a folder.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import installed, report, results
from bench.goals import GOALS
from bench.machine import described
from bench.parts import PARTS, Part
from bench.results import Run
from bench.sample import FAILURES, Failure, Measured, failure

HERE = Path(__file__).parent
QUIET = 0.5
"""The load of a machine on which nothing else runs."""

HEADINGS = {part.name: part.headings for part in PARTS}


async def measured(part: Part, rounds: int, quick: bool, begun: float) -> list[Measured]:
    """All that one part gives; prints a line when a measurement begins."""
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C does: no process is left

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:4.0f} s  {what}", flush=True)

    found: list[Measured] = []
    try:
        async for each in part.measure(rounds, quick, say):
            found.append(each)
            if isinstance(each, Failure):
                say(f"{each.who} is left out: {each.why}")
    except FAILURES as error:
        found.append(failure(part.headings[0].table, "the rest", error))
        say(f"the rest of {part.name} is left out: {error}")
    return found


def run_of(part: Part, rounds: int, quick: bool, begun: float) -> Run:
    """One run of a part."""
    before = os.getloadavg()[0]
    found = asyncio.run(measured(part, rounds, quick, begun))
    when = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return Run(when, described(), rounds, before, os.getloadavg()[0], tuple(found))


def write(folder: Path, run: dict[str, Run]) -> None:
    """Replaces what this folder has of these parts. The text outside the marks is not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / "results.json"
    known = results.read(samples, HEADINGS)
    runs = {name: run.get(name) or known[name] for name in HEADINGS if name in run or name in known}
    results.write(samples, runs)
    page = folder / "RESULTS.md"
    text = page.read_text() if page.exists() else "# What was measured\n"
    page.write_text(report.placed(text, report.markdown(HEADINGS, runs, GOALS)))
    for file, content in report.drawings(HEADINGS, runs).items():
        (folder / file).write_text(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 if anything could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"all, or some of: {', '.join(HEADINGS)}")
    parser.add_argument("--rounds", type=int, help="how often each part is measured (default 3; 1 if quick)")
    parser.add_argument("--quick", action="store_true", help="shorter and smaller, to see that it works")
    parser.add_argument("--into", type=Path, help="the folder that results are written into")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.parts) - set(HEADINGS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; the parts are {', '.join(HEADINGS)}")
    rounds = wanted.rounds or (1 if wanted.quick else 3)
    if not 1 <= rounds <= 100:
        parser.error("--rounds must be from 1 to 100")
    folder = wanted.into or (None if wanted.quick else HERE)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a thousand connections at both ends
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled too
    if (load := os.getloadavg()[0]) > QUIET:
        print(f"The machine is busy (load {load:.1f}): rely on ratios without a mark, on kilobytes and on counts only")
    if not wanted.quick and (why := installed.install()):
        print(f"The sidecar is measured in .venv, with the packages of the tests, since it cannot be installed: {why}")
    runs: dict[str, Run] = {}
    begun = time.monotonic()
    try:
        for part in PARTS:
            if not wanted.parts or part.name in wanted.parts:
                runs[part.name] = run_of(part, rounds, wanted.quick, begun)
                if folder is not None:
                    write(folder, {part.name: runs[part.name]})
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"interrupted; complete parts: {', '.join(runs) or 'none'}", file=sys.stderr)
        return 130
    tables = {heading.table for name in runs for heading in HEADINGS[name]}
    print(f"\n{report.markdown(HEADINGS, runs, [goal for goal in GOALS if goal.table in tables])}")
    print(f"{time.monotonic() - begun:.0f} s in all")
    return 1 if any(run.failures for run in runs.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
