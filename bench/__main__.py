"""`make bench`: measures all programs in one run on one machine, in several rounds of each part.

A complete run writes RESULTS.md (between two marks), results.json (each sample) and results.svg into this folder. A
run of some parts, or a quick run, prints the result, and writes it only with `--into` a folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench import report
from bench.machine import described
from bench.parts import PARTS, Part
from bench.plot import svg
from bench.program import WentWrong
from bench.sample import Sample

HERE = Path(__file__).parent


async def measured(parts: Sequence[Part], rounds: int, quick: bool) -> list[Sample]:
    """All samples of these parts; prints a line when a measurement begins."""
    begun, this = time.monotonic(), asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C does: no process is left

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:4.0f} s  {what}", flush=True)

    return [sample for part in parts async for sample in part.measure(rounds, quick, say)]


def write(folder: Path, generated: str, samples: Sequence[Sample], about: dict[str, str], drawing: str) -> None:
    """Write the results. The text outside the marks is not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "RESULTS.md"
    text = results.read_text() if results.exists() else "# What was measured\n"
    results.write_text(report.placed(text, generated))
    lines = ",\n".join(json.dumps(sample._asdict(), ensure_ascii=False) for sample in samples)
    machine = json.dumps(about, ensure_ascii=False)
    (folder / "results.json").write_text(f'{{"machine": {machine},\n"samples": [\n{lines}\n]}}\n')
    (folder / "results.svg").write_text(drawing)


def main() -> int:
    names = [part.heading.part for part in PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"all, or some of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="how often each part is measured (default 3; 1 if quick)")
    parser.add_argument("--quick", action="store_true", help="shorter and smaller, to see that it works")
    parser.add_argument("--into", type=Path, help="the folder that results are written into")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(names):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; the parts are {', '.join(names)}")
    whole = not arguments.parts and not arguments.quick
    parts = [part for part in PARTS if not arguments.parts or part.heading.part in arguments.parts]
    rounds = arguments.rounds or (1 if arguments.quick else 3)

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a thousand connections at both ends
    about = described()
    try:
        samples = asyncio.run(measured(parts, rounds, arguments.quick))
    except WentWrong as error:
        print(f"the benchmark stopped: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted; nothing is written", file=sys.stderr)
        return 130
    headings = [part.heading for part in parts]
    generated = report.markdown(headings, samples, about, rounds)
    print(f"\n{generated}")
    folder = arguments.into or (HERE if whole else None)
    if folder is not None:
        write(folder, generated, samples, about, svg(headings, samples))
    return 0


if __name__ == "__main__":
    sys.exit(main())
