"""The command line of a soak, and the table that it prints."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console
from rich.table import Table

from tests.soak.measured import Flat


def grown(flat: Iterable[Flat]) -> list[str]:
    """What was to be flat, and is not."""
    return [f"{each.name} grew from {each.first:.1f} to {each.last:.1f}" for each in flat if not each.held]


def table(
    counts: Mapping[str, int], figures: Mapping[str, str], must_be_none: Mapping[str, int], flat: Iterable[Flat]
) -> Table:
    """What happened, and what of it must not."""
    it = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "seen", "must be"):
        it.add_column(name, justify="left" if not name else "right")
    for name in sorted(counts):
        it.add_row(name, str(counts[name]), "")
    for name, figure in figures.items():
        it.add_row(name, figure, "")
    for name, count in must_be_none.items():
        it.add_row(name, _coloured(str(count), good=not count), "0")
    for each in flat:
        it.add_row(each.name, _coloured(f"{each.first:.1f} at first, {each.last:.1f} at last", good=each.held), "flat")
    return it


def _coloured(text: str, *, good: bool) -> str:
    return f"[{'green' if good else 'red'}]{text}[/]"


def main(
    parser: argparse.ArgumentParser, minutes: float, run: Callable[[argparse.Namespace], tuple[Table, list[str]]]
) -> int:
    """Adds --minutes and --seed, and prints what `run` returns: the table, and whatever must not be. The exit code."""
    parser.add_argument("--minutes", type=float, default=minutes, help=f"how long (default {minutes:g})")
    parser.add_argument("--seed", type=int, default=None, help="decides what happens (default: another one each time)")
    arguments = parser.parse_args()
    if arguments.seed is None:
        arguments.seed = random.SystemRandom().randrange(10_000)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(f"{arguments.minutes:g} minutes with seed {arguments.seed} ...")
    begun = time.monotonic()
    shown, problems = run(arguments)
    console.print(shown)
    for line in problems[:20]:
        console.print(line, style="red", markup=False)
    verdict = "DID NOT HOLD" if problems else "held"
    console.print(f"seed {arguments.seed}, {time.monotonic() - begun:.0f} s: {verdict}")
    return 1 if problems else 0
