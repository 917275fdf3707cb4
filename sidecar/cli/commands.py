"""The commands of `prosody-sidecar` for operators; `run` is in main.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import click

from sidecar.cli import check, doctor, render
from sidecar.cli.admin_client import ask
from sidecar.cli.engine_probe import look_at_engine
from sidecar.cli.live_status import watch
from sidecar.cli.main import DEMO_CONFIG, DEMO_PORT, EXIT_CODES, config_option, demo_backend, main
from sidecar.cli.probe import Step, look
from sidecar.cli.service import DEFAULT_FILES, complain, found
from sidecar.config.admin_socket import SYSTEM, admin_socket
from sidecar.config.backend_target import target_from
from sidecar.config.credentials import SOURCES, as_the_service, read_secret, read_tokens
from sidecar.config.environment import has_settings
from sidecar.config.loader import Examined, parse
from sidecar.config.models import Settings
from sidecar.config.running_daemon import examine_running
from sidecar.errors import ConfigError, SidecarError, StartError, Unreachable

__all__ = ["EXIT_CODES", "main"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _engine(settings: Settings) -> list[Step]:
    """What is found of the engine that several sidecars share."""
    return asyncio.run(look_at_engine(settings.shared, as_the_service(os.environ), token_hex))


@main.command("check")
@config_option
@_json_option
@click.option(
    "--online", is_flag=True, help="Also test the backend (DNS, TCP, TLS, secret, latency) and the shared engine."
)
def check_command(file: Path | None, as_json: bool, online: bool) -> None:
    """Show everything in a config file that is wrong or not advisable. Warnings do not change the exit code."""
    source = found(file)
    report = check.check(source, os.environ)
    steps: list[Step] = []
    if online and report.settings is not None:
        steps = asyncio.run(look(report.settings, target_from(report.settings, as_the_service(os.environ))))
        steps += _engine(report.settings)
    good = not report.problems and all(step.good for step in steps)
    if as_json:
        document = {"problems": report.problems, "warnings": report.warnings, "notes": report.notes}
        render.line(json.dumps({**document, **({"online": [asdict(step) for step in steps]} if online else {})}))
    else:
        for line in report.problems:
            complain(line)
        for line in report.warnings:
            complain(line, "warning")
        if not report.problems:
            render.line(f"{report.name}: {'can be used, with the warnings above' if report.warnings else 'good'}")
            for note in report.notes:
                render.line(note)
        render.steps(steps)
    if not good:
        raise click.exceptions.Exit(1)


@main.command()
@config_option
@_json_option
@click.option("--history", is_flag=True, help="With --json: also the numbers of each of the last 120 seconds.")
@click.option("--watch", "watching", is_flag=True, help="Show it live, with graphs, until Ctrl-C.")
def status(file: Path | None, as_json: bool, history: bool, watching: bool) -> None:
    """Show the state of the running sidecar on one screen."""
    if watching:
        with contextlib.suppress(KeyboardInterrupt):
            watch(lambda: dict(_ask(file, "GET", "/status")))
        return
    document = _ask(file, "GET", "/status")
    if not history:
        document["recent"] = {"last_reload": document["recent"]["last_reload"]}
    _show(document, as_json, render.status)
    if document["reasons"]:
        raise click.exceptions.Exit(1)


@main.command("doctor")
@config_option
@_json_option
@click.option("--prosodyctl", default="prosodyctl", show_default=True, help="The command for Prosody's shell.")
def doctor_command(file: Path | None, as_json: bool, prosodyctl: str) -> None:
    """Walk the way of a join, from the module in Prosody to the backend, and say what is wrong. Run it with sudo."""
    source = found(file)
    examined, settings = examine_running(source, os.environ)
    steps = [Step("config", "failed", line, "fix it, then reload") for line in examined.problem_lines()[:1]]
    status, why_away = None, ""
    try:
        status = _ask(file, "GET", "/status")
    except SidecarError as error:
        why_away = str(error)
    backend = _backend(examined, settings, newer_secret=doctor.has_newer_secret(status))
    steps += doctor.judge(doctor.ask_prosody(prosodyctl), status, settings.listen, why_away, backend)
    steps += [*backend, *_engine(settings)]
    if status is not None:
        steps.append(doctor.judge_events(status["outbox"]))
    _show({"steps": [asdict(step) for step in steps]}, as_json, lambda _: render.steps(steps))
    if not all(step.good for step in steps):
        raise click.exceptions.Exit(1)


def _backend(examined: Examined, settings: Settings, *, newer_secret: bool) -> list[Step]:
    """What is found of the backend, with the secret of the service, or with the one that its next start will read."""
    try:
        target = target_from(examined.usable(), as_the_service(os.environ))
        if not newer_secret:
            return asyncio.run(look(settings, target))
        secret = read_secret(settings.backend, {"CREDENTIALS_DIRECTORY": str(SOURCES)})
        return doctor.of_newer_secret(asyncio.run(look(settings, replace(target, secret=secret))))
    except ConfigError:
        return [Step("backend", "unwise", "not examined: the config file has a mistake", "fix it first")]
    except StartError as error:
        return [Step("backend", "unwise", f"not examined: {error}", doctor.how_to_read_it())]


@main.command()
@config_option
def healthcheck(file: Path | None) -> None:
    """Whether the daemon answers, for a container's health check. It says nothing about the backend."""
    _ask(file, "GET", "/livez")


@main.command()
@config_option
@_json_option
@click.argument("room")
@click.argument("user", required=False)
def explain(file: Path | None, as_json: bool, room: str, user: str | None) -> None:
    """Show what would be answered for ROOM [and USER] now, and why. USER is a bare JID, a user id, or `guest`."""
    query = {"room": room, **({"user": user} if user else {})}
    _show(_ask(file, "GET", "/explain", query=query), as_json, render.explain)


@main.command()
@config_option
@_json_option
@click.option("--room", help="Remove all cached answers about this room.")
@click.option("--user", help="Remove all cached answers about this user (bare JID, user id, or `guest`).")
@click.option("--all", "everything", is_flag=True, help="Remove all cached answers.")
def purge(file: Path | None, as_json: bool, room: str | None, user: str | None, everything: bool) -> None:
    """Remove cached answers, and answers that are under way; the next request asks the backend."""
    if not (room or user or everything):
        raise click.UsageError("give --room, --user or --all")
    order = {"room": room, "user": user, "all": everything}
    document = _ask(file, "POST", "/purge", body=order)
    later = "; the other shards hear of it when their engine answers" if document.get("pending") else ""
    _show(document, as_json, lambda done: render.line(f"forgotten: {done['purged']}{later}"))


@main.command()
@config_option
@_json_option
@click.option("--room", help="Answers about this room.")
@click.option("--user", help="Answers about this user (bare JID, user id, e-mail, or `guest`).")
@click.option("--meeting", help="Answers for this meeting id.")
@click.option("--drop", is_flag=True, help="Delete them; without it, they still count while the backend is away.")
def forget(
    file: Path | None, as_json: bool, room: str | None, user: str | None, meeting: str | None, drop: bool
) -> None:
    """Ask the backend again before cached answers are used."""
    if not (room or user or meeting):
        raise click.UsageError("give --room, --user or --meeting")
    _order(file, as_json, "forget", room=room, user=user, meetingId=meeting, mode="drop" if drop else "suspect")


@main.command()
@config_option
@_json_option
@click.argument("room")
@click.argument("user", required=False)
@click.option("--nick", help="The name in the room, for a guest, instead of USER.")
@click.option("--reason", help="What the user is told.")
def kick(file: Path | None, as_json: bool, room: str, user: str | None, nick: str | None, reason: str | None) -> None:
    """Put USER out of ROOM now, and forget that the user was allowed. USER is a user id, an e-mail or a bare JID."""
    if (user is None) == (nick is None):
        raise click.UsageError("give either USER or --nick")
    _order(file, as_json, "kick", room=room, user=user, nick=nick, reason=reason)


@main.command()
@config_option
@_json_option
@click.argument("room")
@click.option("--reason", help="What the users are told.")
def end(file: Path | None, as_json: bool, room: str, reason: str | None) -> None:
    """End the meeting in ROOM for all."""
    _order(file, as_json, "end", room=room, reason=reason)


@main.command()
@config_option
@_json_option
@click.argument("room")
def refresh(file: Path | None, as_json: bool, room: str) -> None:
    """Ask the backend for the config of ROOM again, and apply what has changed."""
    _order(file, as_json, "refresh", room=room)


@main.command()
@config_option
@_json_option
@click.argument("room")
def who(file: Path | None, as_json: bool, room: str) -> None:
    """Show who is in ROOM."""
    _show(_ask(file, "GET", f"/control/v1/rooms/{quote(room, safe='@')}"), as_json, render.occupants)


def _order(file: Path | None, as_json: bool, verb: str, **said: str | None) -> None:
    """Send an order; without a module that carries it out within five seconds, it is pending."""
    body = {name: value for name, value in said.items() if value is not None}
    _show(_ask(file, "POST", f"/control/v1/{verb}", body=body), as_json, render.ordered)


@main.group()
def outbox() -> None:
    """Manage the events that wait for the backend."""


@outbox.command("list")
@config_option
@_json_option
@click.option("--limit", default=100, show_default=True, help="The most events to list.")
def outbox_list(file: Path | None, as_json: bool, limit: int) -> None:
    """List the parked events and the oldest pending events."""
    document = _ask(file, "GET", "/outbox", query={"limit": str(limit)})
    _show(document, as_json, render.outbox)


_numbers = click.argument("numbers", nargs=-1, type=int)


@outbox.command("retry")
@config_option
@_json_option
@_numbers
@click.option("--all", "everything", is_flag=True, help="All parked events.")
def outbox_retry(file: Path | None, as_json: bool, numbers: tuple[int, ...], everything: bool) -> None:
    """Try parked events again: these NUMBERS, or all."""
    document = _ask(file, "POST", "/outbox/retry", body=_which(numbers, everything))
    _show(document, as_json, lambda done: render.line(f"waiting again: {done['retried']}"))


@outbox.command("drop")
@config_option
@_json_option
@_numbers
@click.option("--all", "everything", is_flag=True, help="All events.")
@click.option("--waiting", is_flag=True, help="Drop pending events instead of parked events.")
def outbox_drop(file: Path | None, as_json: bool, numbers: tuple[int, ...], everything: bool, waiting: bool) -> None:
    """Delete parked events: these NUMBERS, or all. They cannot be restored."""
    body = {**_which(numbers, everything), "waiting": waiting}
    document = _ask(file, "POST", "/outbox/drop", body=body)
    _show(document, as_json, lambda done: render.line(f"dropped: {done['dropped']}"))


def _which(numbers: tuple[int, ...], everything: bool) -> dict[str, Any]:
    if everything == bool(numbers):
        raise click.UsageError("give the numbers that `outbox list` shows, or --all")
    return {"all": True} if everything else {"numbers": list(numbers)}


@main.command("demo-backend")
@config_option
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=DEMO_PORT, show_default=True)
@click.option("--secret", default=None, help="The webhook secret that it requires. Default: none.")
def demo_backend_command(file: Path | None, host: str, port: int, secret: str | None) -> None:
    """Run a small meeting service for tests; GET / describes it."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(demo_backend(host, port, secret))


def _ask(file: Path | None, method: str, path: str, **more: Any) -> Any:
    """Send one request to the running daemon, with its token if it has one."""
    source = found(file)
    if (
        file is None and not os.path.exists(source) and not has_settings(os.environ)
    ):  # `run --demo` has the same admin listener as the defaults
        return _ask_at(parse(DEMO_CONFIG, "the demo's config"), source, method, path, **more)
    examined, settings = examine_running(source, os.environ)
    try:
        return _ask_at(settings, source, method, path, **more)
    except (Unreachable, StartError):
        examined.usable()  # problems in the file are the more probable cause
        raise


def _ask_at(settings: Settings, source: Path, method: str, path: str, **more: Any) -> Any:
    admin, sockets = settings.admin, []
    if method != "GET" or path.startswith("/control"):  # what only reads needs no right, so it needs no socket
        own = admin_socket(settings, os.environ)
        sockets = [*([SYSTEM] if source == DEFAULT_FILES[0] else []), *([own] if own is not None else [])]
    tokens = read_tokens("admin-token", admin.token_file, os.environ)
    return ask(admin, method, path, sockets=sockets, token=tokens[0] if tokens else None, **more)


def _show(document: Any, as_json: bool, in_words: Callable[[Any], None]) -> None:
    if as_json:
        render.line(json.dumps(document, indent=2))
    else:
        in_words(document)
