"""What the commands print for operators."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sidecar.cli.output import Output
from sidecar.cli.probe import Step
from sidecar.config.credentials import CREDENTIAL, TEST_FIRST
from sidecar.core.durations import span

_console = Output(soft_wrap=True)


def line(text: str) -> None:
    """Text as it is."""
    _console.print(Text(text))


def status(document: dict[str, Any]) -> None:
    """One screen: the state, and the most important numbers."""
    _console.print(overview(document))


def overview(document: dict[str, Any]) -> Group:
    """The same, as a part of a larger screen."""
    reasons = document["reasons"]
    if not document["serving"]:
        head = Text("● starting or stopping", style="yellow")
    elif reasons:
        head = Text("● degraded", style="bold yellow")
    else:
        head = Text("● well", style="bold green")
    head.append(f"   version {document['version']}, up for {span(document['uptime_seconds'])}", style="dim")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_row("config", Text(document["config"]))
    table.add_row("last reload", _reload(document))
    table.add_row("backend", Text(document["backend"]))
    for name, endpoint in document["endpoints"].items():
        style = {"closed": "green", "open": "bold red"}.get(endpoint["breaker"], "yellow")
        calls = f"; {endpoint['calls_under_way']} calls under way, {endpoint['calls_waiting']} waiting"
        table.add_row(f"  {name}", Text.assemble("breaker ", (endpoint["breaker"], style), calls))
    table.add_row("Prosody", _modules(document))
    if document.get("shared") is not None:
        table.add_row("shared", _shared(document["shared"]))
    table.add_row("remembered", ", ".join(f"{number:,} {kind}" for kind, number in document["cache"].items()))
    events = document["outbox"]
    table.add_row("outbox", Text(_counts(events), style="yellow" if events["parked"] else ""))
    for name in document.get("files_set_aside", ()):
        table.add_row("set aside", Text(f"{name} in state_dir could not be used; look at it, then delete it", "yellow"))
    table.add_row("process", _process(document))
    said = (*reasons, *(f"note: {note}" for note in document["notes"]))
    return Group(head, *(Text(f"  {line}", style="yellow") for line in said), table)


def _modules(document: dict[str, Any]) -> Text:
    """The links. The state of the module itself only Prosody's shell says."""
    links = [f"{each['host']} is connected for {span(each['up_seconds'])}" for each in document["modules"]]
    others = [each for each in document.get("hosts", ()) if not each["linked"]]
    silent = [f"{each['host']} has no link, and was heard {span(each['silent_seconds'])} ago" for each in others]
    style = "yellow" if any(each["had_link"] for each in others) else ""
    return Text(", ".join((*links, *silent)) or "no module is connected; without a link it asks over HTTP", style)


def _shared(shared: dict[str, Any]) -> Text:
    """The memory that several sidecars share."""
    if not shared["in_touch"]:
        return Text(f"out of touch with the others; {shared['unsaid']} unsaid", style="yellow")
    members = "1 member" if shared["members"] == 1 else f"{shared['members']} members"
    lag = f"in touch, {members}; {shared['behind']} messages behind, {shared['unsaid']} unsaid"
    return Text(lag, style="yellow" if shared["unsaid"] else "")


def _reload(document: dict[str, Any]) -> Text:
    last = document["recent"]["last_reload"]
    if last is None:
        return Text(f"none since the start at {_clock_time(document['started_at'])}")
    when = _clock_time(last["at"])
    if last["problems"]:
        more = len(last["problems"]) - 1
        return Text(f"{when}, refused{f': {more + 1} problems' if more else ''}; the old settings stay", style="yellow")
    left = f"; {', '.join(last['needs_restart'])} needs a restart" if last["needs_restart"] else ""
    if CREDENTIAL in last["needs_restart"]:
        left += f"; {TEST_FIRST}"
    return Text(f"{when}, applied{left}", style="yellow" if left else "")


def _process(document: dict[str, Any]) -> str:
    megabytes = document["memory_bytes"] / 1e6
    return f"{megabytes:.0f} MB of memory, event loop {document['loop_lag_seconds'] * 1e3:.1f} ms late"


def _clock_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def steps(walked: Sequence[Step]) -> None:
    """What `check --online` found, and what to do about each problem."""
    marks = {"ok": Text("✓", style="green"), "unwise": Text("!", style="yellow"), "failed": Text("✗", style="bold red")}
    for step in walked:
        _console.print(marks[step.state], Text(f" {step.name:8}", style="bold"), Text(step.found), sep="")
        if step.advice:
            _console.print(f"           -> {step.advice}")


def explain(document: dict[str, Any]) -> None:
    """One paragraph for each cached key."""
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
        _console.print(f"and {document['left_out']} more; give a user to see that user's answers")


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
    oldest = span(outbox_counts.get("oldest_seconds") or 0)
    return f"{outbox_counts['pending']} pending (oldest {oldest}), {outbox_counts['parked']} parked"


def ordered(document: dict[str, Any]) -> None:
    """What became of an order."""
    if document.get("pending"):
        _console.print("pending: no module of Prosody has carried it out yet")
    for name, value in document.items():
        if name != "pending":
            _console.print(Text(f"{name}: {'yes' if value is True else value}"))


def occupants(document: dict[str, Any]) -> None:
    """Who is in a room."""
    for each in document["occupants"]:
        known = {name: value for name, value in each.items() if value not in (None, "", False)}
        _console.print(Text("  ".join(f"{name}: {value}" for name, value in known.items())))
    if not document["occupants"]:
        _console.print("nobody")
