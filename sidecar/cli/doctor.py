"""`prosody-sidecar doctor`: walks the way of a join on a live system, and says what is wrong on one screen.

module in Prosody -> its URL -> link -> sidecar -> secret -> backend -> events

What was found is read first (the shell of Prosody, the status of the daemon, the backend); the rest only judges it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sidecar.cli.probe import Step
from sidecar.config.credentials import (
    CREDENTIAL,
    OF_THE_SERVICE,
    RESTART,
    SOURCES,
    has_changed,
    newer_than_credentials,
)
from sidecar.config.models import Listen
from sidecar.core.addresses import is_loopback
from sidecar.core.durations import span

SHELL_WITHIN = 15.0
"""Seconds for Prosody's shell to answer."""

WAITING_LONG = 600
"""Seconds after which an event that waits is worth a look."""

_LOG_OF_PROSODY = "see Prosody's log (journalctl -u prosody, or /var/log/prosody/prosody.err)"

_RELOAD = "prosodyctl shell \"module:reload('muc_webhook')\""


@dataclass(frozen=True, slots=True)
class Said:
    """What Prosody's shell printed; `missing` if it could not be asked at all, with the reason."""

    text: str = ""
    missing: str = ""


def ask_prosody(prosodyctl: str) -> Said:
    """The status of the modules. `prosodyctl` is a command, with arguments."""
    command = [*shlex.split(prosodyctl), "shell", "muc_webhook:status()"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SHELL_WITHIN,
            check=False,
        )
    except FileNotFoundError:
        return Said(missing=f"there is no command {command[0]} here")
    except subprocess.TimeoutExpired:
        return Said(missing=f"{command[0]} did not answer within {SHELL_WITHIN:g} s")
    except OSError as error:
        return Said(missing=f"{command[0]} cannot be run: {error.strerror}")
    return Said(done.stdout.decode(errors="replace"))


def how_to_read_it() -> str:
    """What helps where a file of the config could not be read: root can read each that is there."""
    return "run doctor with sudo" if os.geteuid() != 0 else "create this file, or correct its name in the config"


def has_newer_secret(status: Mapping[str, Any] | None) -> bool:
    """Whether the file has another webhook secret than the running service. A reload of systemd 252 passes the new one
    only after the service has read the old one; then only the status knows."""
    last = status["recent"]["last_reload"] if status is not None else None
    return SOURCES / CREDENTIAL in _newer_files() or (last is not None and CREDENTIAL in last["needs_restart"])


def of_newer_secret(steps: Sequence[Step]) -> list[Step]:
    """The steps of the backend, which were tested with the secret of the file and not with that of the service."""
    found = f"the secret in {SOURCES / CREDENTIAL} was tested and refused; the running service still has the older one"
    advice = "correct this file before any restart: with this secret, the meeting service would refuse every request"
    return [replace(step, found=f"{found} ({step.found})", advice=advice) if _refused(step) else step for step in steps]


def _refused(step: Step) -> bool:
    return step.name == "secret" and not step.good


def judge(
    said: Said,
    status: Mapping[str, Any] | None,
    listen: Listen,
    why_away: str = "",
    backend: Sequence[Step] = (),
) -> list[Step]:
    """The steps before the backend. `status` is the daemon's, None if it does not answer; then `why_away` says why.
    `backend`: the steps after them. Before a restart with a new secret, they must have found that it is accepted."""
    modules = status["modules"] if status is not None else []
    steps = list(_modules(said, [each["host"] for each in modules], listen))
    if status is None:
        advice = "run: systemctl status prosody-sidecar; journalctl -u prosody-sidecar -n 20 -o cat"
        return [*steps, Step("sidecar", "failed", why_away, advice)]
    first = _before_restart(backend) if has_newer_secret(status) else ""
    return [
        *steps,
        _link(modules, status.get("hosts", ()), status["version"]),
        *_sidecar(status, first),
        *_secrets(first),
    ]


def _before_restart(backend: Sequence[Step]) -> str:
    """What to do before a restart with the new secret; nothing if it was tested and accepted."""
    tested = [step for step in backend if step.name == "secret"]
    if not tested:
        return "first let the backend answer, and run doctor again: the new secret could not be tested. Then "
    return f"correct {SOURCES / CREDENTIAL} first, then " if any(map(_refused, tested)) else ""


def _modules(said: Said, linked: Sequence[str], listen: Listen) -> Iterator[Step]:
    if said.missing:
        advice = "on the machine or in the container of Prosody, run: prosodyctl shell 'muc_webhook:status()'"
        yield Step("module", "unwise", f"not examined: {said.missing}", advice)
    elif "Unable to connect" in said.text:
        if os.geteuid() != 0:
            yield Step("module", "unwise", "not examined: Prosody's shell cannot be reached", "run doctor with sudo")
        else:
            advice = "run: systemctl status prosody. If it runs, admin_shell must be among its modules_enabled"
            yield Step("module", "failed", "Prosody does not run, or has no admin_shell", advice)
    elif not _ANSWERED.search(said.text):
        words = re.findall(r"^\s*(\w.*)", said.text, re.M) or ["nothing"]
        advice = "run doctor with sudo" if os.geteuid() != 0 else "run: prosodyctl shell 'muc_webhook:status()'"
        yield Step("module", "unwise", f"not examined: Prosody's shell did not answer, but said: {words[0]}", advice)
    else:
        yield from _each_module(said.text, linked, listen)


_ANSWERED = re.compile(r"muc_webhook|component\(s\)")
"""By Prosody's shell: the status, or that it knows no such name. A prosodyctl without Prosody's config says neither."""


def _each_module(text: str, linked: Sequence[str], listen: Listen) -> Iterator[Step]:
    down = re.findall(r"([\w.-]+): the gate is DOWN, every join is refused: (.*)", text)
    asks = re.findall(r"([\w.-]+) asks (\S+)", text)
    for host, why in down:
        yield Step("module", "failed", f"{host}: the gate is down, and every join is refused: {why}", _LOG_OF_PROSODY)
    for host, url in asks:
        yield Step("module", "ok", f"{host}: loaded, the gate is up")
        yield _url(host, url, linked, listen)
    for problem in re.findall(r"^\W*problem: (.*)", text, re.M):
        yield Step("module", "failed", f"an option is wrong: {problem}", "fix it in Prosody's config, restart Prosody")
    if not down and not asks:
        advice = (
            'muc_webhook belongs in modules_enabled of the Component ... "muc", and the folder with its file '
            "(/usr/share/jitsi-meet/prosody-plugins) in plugin_paths; then restart Prosody, and " + _LOG_OF_PROSODY
        )
        yield Step("module", "failed", "Prosody runs without muc_webhook: everybody can join every meeting", advice)


def _url(host: str, url: str, linked: Sequence[str], listen: Listen) -> Step:
    """Whether the module asks this sidecar. A link proves that it does, whatever way the URL takes."""
    ours = f"http://{listen.host}:{listen.port}{listen.prefix}"
    if host in linked or _same(url, ours):
        return Step("url", "ok", f"{host} asks {url}")
    advice = f'in Prosody\'s config: muc_webhook_url = "{ours}"; then restart Prosody'
    return Step("url", "failed", f"{host} asks {url}, and this sidecar listens on {ours}", advice)


def _same(one: str, other: str) -> bool:
    first, second = urlsplit(one), urlsplit(other)
    hosts = {first.hostname or "", second.hostname or ""}
    near = len(hosts) == 1 or all(host == "localhost" or is_loopback(host) for host in hosts)
    return near and first.port == second.port and first.path.rstrip("/") == second.path.rstrip("/")


def _link(modules: Sequence[Mapping[str, Any]], hosts: Sequence[Mapping[str, Any]], version: str) -> Step:
    if not modules:
        advice = "it works over HTTP too, but orders do not; the line `link:` of muc_webhook:status() says why"
        asked = [each for each in hosts if each["asked_seconds"] is not None]
        known = "".join(f"; {each['host']} asked {span(each['asked_seconds'])} ago" for each in asked)
        return Step("link", "unwise", f"no module of Prosody is connected{known}", advice)
    for module in modules:
        if module["version"] != version:
            found = f"the module on {module['host']} is {module['version']}, the sidecar is {version}"
            advice = f"install the module of {version} where Prosody runs, then make Prosody load it: {_RELOAD}"
            return Step("link", "unwise", found, advice)
        if module["old_token"]:
            found = f"the module on {module['host']} sends the old token, the second one of listen.token_file"
            advice = (
                'set muc_webhook_secret in Prosody to the first one, then: prosodyctl shell "config:reload()"; '
                + _RELOAD
            )
            return Step("link", "unwise", found, advice)
    connected = ", ".join(f"{module['host']} for {span(module['up_seconds'])}" for module in modules)
    return Step("link", "ok", f"connected: {connected}; version {version} at both ends")


def _sidecar(status: Mapping[str, Any], first: str) -> Iterator[Step]:
    """Each reason why it is degraded; the backend's are found again by the probe, but with another advice."""
    for reason in status["reasons"]:
        yield Step("sidecar", "failed", reason)
    for note in status["notes"]:
        yield Step("sidecar", "unwise", note)
    last = status["recent"]["last_reload"]
    if last is not None and last["needs_restart"]:
        found = f"not in use yet, because only a restart reads it: {', '.join(last['needs_restart'])}"
        yield Step("sidecar", "unwise", found, f"{first}{RESTART}")
    if not status["reasons"]:
        yield Step("sidecar", "ok", f"version {status['version']}, up for {span(status['uptime_seconds'])}")


def _newer_files() -> list[Path]:
    return newer_than_credentials({"CREDENTIALS_DIRECTORY": str(OF_THE_SERVICE)})


def _secrets(first: str) -> Iterator[Step]:
    for file in _newer_files():
        yield Step("secret", "failed", has_changed(file), f"{first if file.name == CREDENTIAL else ''}{RESTART}")


def judge_events(counts: Mapping[str, Any]) -> Step:
    """What is left of the way of an event."""
    waiting, parked, oldest = counts["pending"], counts["parked"], counts["oldest_seconds"]
    if parked:
        advice = "run: prosody-sidecar outbox list; then outbox retry or outbox drop"
        return Step("events", "unwise", f"the backend refused {parked}; they are parked", advice)
    if waiting and oldest > WAITING_LONG:
        found = f"{waiting} wait, the oldest for {span(oldest)}"
        return Step("events", "unwise", found, "see the lines with outcome=unavailable in the log")
    return Step("events", "ok", f"{waiting} on their way, none parked")
