"""`status --watch`: the status with graphs of the last minutes, updated every second."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sidecar.cli.output import Output
from sidecar.cli.render import overview
from sidecar.errors import SidecarError, Unreachable

EVERY = 1.0
WIDE = 100
"""Columns; a terminal at least this wide also shows the meaning of each graph."""
BARS = " ▁▂▃▄▅▆▇█"
COLOURS = {
    "memory": "green",
    "stale": "yellow",
    "backend": "cyan",
    "policy": "red",
    "events": "blue",
    "problem": "magenta",
}
MEANINGS = {
    "memory": "a fresh answer",
    "stale": "an older answer",
    "backend": "from the backend",
    "policy": "nothing was cached",
    "events": "accepted",
    "problem": "malformed requests",
}


def watch(ask: Callable[[], dict[str, Any]], console: Console | None = None) -> None:
    """Show until interrupted. If the daemon stops, say so and wait for it."""
    console = console or Output()
    if not console.is_terminal:
        raise SidecarError("--watch needs a terminal; without one, use: prosody-sidecar status --json")
    pause = threading.Event()
    seen = ask()
    with Live(screen(seen, console.width), console=console, screen=True, auto_refresh=False) as live:
        while not pause.wait(EVERY):
            try:
                seen = ask()
                live.update(screen(seen, console.width), refresh=True)
            except Unreachable as error:
                live.update(Text(f"● {error}", style="bold red"), refresh=True)


def screen(document: dict[str, Any], width: int) -> Group:
    """The whole screen, for a terminal of this width."""
    recent = document["recent"]
    across = max(20, min(recent["seconds"], width - (64 if width >= WIDE else 42)))
    return Group(
        Panel(overview(document), title="prosody-sidecar", title_align="left", border_style="dim"),
        Panel(
            _requests(recent, across, wide=width >= WIDE),
            title=f"requests, last {across} s",
            title_align="left",
            border_style="dim",
        ),
        Panel(_latency(recent, across), title="time to answer", title_align="left", border_style="dim"),
        Text("Ctrl-C to quit", style="dim"),
    )


def _requests(recent: dict[str, Any], across: int, *, wide: bool) -> Table:
    sources = {name: line[-across:] for name, line in recent["sources"].items()}
    total = [sum(each) for each in zip(*sources.values(), strict=True)]
    table = _grid()
    table.add_row("all", Text(spark(total), style="bold"), f"{total[-1]} /s", f"{sum(total):>7,}")
    top = max(total, default=0)
    for name, line in sources.items():
        if any(line) or name in ("memory", "backend"):
            graph = Text(spark(line, top), style=COLOURS[name])
            meaning = f"  {MEANINGS[name]}" if wide else ""
            table.add_row(Text(name, style=COLOURS[name]), graph, f"{line[-1]} /s", f"{sum(line):>7,}{meaning}")
    failures = recent["backend_failures"][-across:]
    if any(failures):
        graph = Text(spark(failures), style="bold red")
        meaning = "  calls to the backend" if wide else ""
        table.add_row(Text("failures", style="bold red"), graph, f"{failures[-1]} /s", f"{sum(failures):>7,}{meaning}")
    return table


def _latency(recent: dict[str, Any], across: int) -> Table:
    table = _grid()
    for name, key, style in (("median", "median_ms", "green"), ("99 %", "slow_ms", "yellow")):
        line = recent[key][-across:]
        known = [value for value in line if value is not None]
        last = f"{known[-1]:.1f} ms" if known else "–"
        most = f"at most {max(known):.1f} ms" if known else "no requests yet"
        table.add_row(name, Text(spark([value or 0 for value in line]), style=style), last, most)
    return table


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=8)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", min_width=8)
    table.add_column(no_wrap=True)
    return table


def spark(values: Sequence[float], top: float | None = None) -> str:
    """One character for each value; every value above 0 is visible."""
    most = max(values, default=0) if top is None else top
    if most <= 0:
        return BARS[0] * len(values)
    steps = len(BARS) - 1
    return "".join(BARS[0 if value <= 0 else max(1, min(steps, round(value / most * steps)))] for value in values)
