"""What the commands print for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.online import Step

_console = Console(highlight=False, soft_wrap=True)


def status(document: dict[str, Any]) -> None:
    """One screen: is it well, and the numbers an operator asks for first."""
    reasons = document["reasons"]
    if not document["serving"]:
        _console.print(Text("● starting or stopping", style="yellow"))
    elif reasons:
        _console.print(Text("● degraded", style="bold yellow"))
    else:
        _console.print(Text("● well", style="bold green"))
    for reason in reasons:
        _console.print(Text(f"  {reason}", style="yellow"))
    table = Table.grid(padding=(0, 2))
    table.add_row("version", f"{document['version']}, up for {_span(document['uptime_seconds'])}")
    table.add_row("config", document["config"])
    table.add_row("backend", document["backend"])
    for name, lane in document["endpoints"].items():
        calls = f"{lane['calls_under_way']} calls under way, {lane['calls_waiting']} waiting"
        table.add_row(name, f"breaker {lane['breaker']}; {calls}")
    table.add_row("remembered", ", ".join(f"{number} {kind}" for kind, number in document["cache"].items()))
    table.add_row("outbox", _counts(document["outbox"]))
    _console.print(table)


def steps(walked: Sequence[Step]) -> None:
    """What `check --online` found, with what to do where something is not as it should be."""
    marks = {"ok": Text("✓", style="green"), "unwise": Text("!", style="yellow"), "failed": Text("✗", style="bold red")}
    for step in walked:
        _console.print(marks[step.state], Text(f" {step.name:8}", style="bold"), Text(step.found), sep="")
        if step.advice:
            _console.print(f"           -> {step.advice}")


def explain(document: dict[str, Any]) -> None:
    """One paragraph per remembered key."""
    for answer in document["answers"]:
        who = f" for {answer['subject']}" if answer["subject"] else ""
        _console.print(Text(f"{answer['endpoint']} {answer['room']}{who}", style="bold"))
        table = Table.grid(padding=(0, 2))
        table.add_row("  now", answer["now"])
        table.add_row("  if the backend failed now", answer["if_backend_failed_now"])
        table.add_row("  remembered", f"{answer['remembered']} ({answer['state']})")
        table.add_row("  breaker", answer["breaker"])
        table.add_row("  rule", answer["rule"])
        _console.print(table)
    if document["left_out"]:
        _console.print(f"and {document['left_out']} more; name a user to see theirs")


def outbox(document: dict[str, Any]) -> None:
    """Two tables of events: parked and waiting."""
    _console.print(_counts(document["counts"]))
    for name in ("parked", "waiting"):
        events = document[name]
        if not events:
            continue
        table = Table("number", "endpoint", "room", "accepted", "why", box=None, pad_edge=False, title_justify="left")
        table.title = name
        for event in events:
            accepted = datetime.fromtimestamp(event["accepted_at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(str(event["number"]), event["endpoint"], event["room"], accepted, event["reason"] or "")
        _console.print(table)


def _counts(outbox_counts: dict[str, Any]) -> str:
    oldest = _span(outbox_counts.get("oldest_seconds") or 0)
    return f"{outbox_counts['pending']} pending (oldest {oldest}), {outbox_counts['parked']} parked"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
