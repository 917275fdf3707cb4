"""A wrong secret under systemd, which passes it as a credential: every message leads to the command that helps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.machine import Debian, Machine

SERVICE = "prosody-sidecar.service"
SECRET = "/etc/prosody-sidecar/webhook-secret"


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]
) -> Iterator[Machine]:
    shared = tmp_path_factory.mktemp("shared")
    shutil.copy(packages[debian], shared / "sidecar.deb")
    shared.chmod(0o755)
    with Machine(shared, debian) as booted:
        booted.run("dpkg", "--install", "/shared/sidecar.deb")
        booted.write("/etc/prosody-sidecar/sidecar.yaml", "backend:\n  url: http://127.0.0.1:8790/webhooks/jitsi\n")
        booted.write(SECRET, "wrong", mode="600")
        demo = ("prosody-sidecar", "demo-backend", "--port", "8790", "--secret", "right")
        booted.run("systemd-run", "--quiet", "--unit=backend", *demo)
        booted.run("systemctl", "enable", "--now", "prosody-sidecar")
        yield booted


def reasons(machine: Machine) -> str:
    return " ".join(json.loads(machine.run("prosody-sidecar", "status", "--json", check=False).stdout)["reasons"])


def test_the_status_says_that_a_restart_is_needed(machine: Machine) -> None:
    assert machine.ask()["allowed"] is False
    assert f"check the webhook secret in {SECRET}" in reasons(machine)
    assert "run: systemctl restart prosody-sidecar" in reasons(machine)


def test_a_changed_secret_is_named_before_any_reload(machine: Machine) -> None:
    machine.write(SECRET, "right", mode="600")
    assert "has changed since the service was started" in machine.run("prosody-sidecar", "check").stderr
    assert "✗ secret" in machine.run("prosody-sidecar", "doctor", check=False).stdout


def test_a_reload_says_that_it_has_not_read_it(machine: Machine) -> None:
    """systemd 252 passes it again at a reload, but only after the service has read the old one."""
    machine.run("systemctl", "reload", SERVICE)
    assert f"{SECRET} has changed since the service was started" in machine.journal()
    warnings = machine.run("journalctl", "-u", SERVICE, "-p", "warning", "--no-pager", "-o", "cat").stdout
    assert f"{SECRET} has changed since the service was started" in warnings
    assert '"level": "info"' not in warnings
    assert "<4>" not in warnings
    shown = machine.run("prosody-sidecar", "status", check=False).stdout
    assert "applied; webhook-secret needs a restart" in shown
    said = machine.run("prosody-sidecar", "doctor", check=False).stdout
    assert "only a restart reads it: webhook-secret" in said
    assert machine.ask()["allowed"] is False


def test_the_restart_helps(machine: Machine) -> None:
    machine.run("systemctl", "restart", SERVICE)
    assert machine.ask()["allowed"] is True
    assert reasons(machine) == ""
    assert "✗ secret" not in machine.run("prosody-sidecar", "doctor", check=False).stdout


def test_a_wrong_secret_in_the_file_is_tested_and_no_restart_is_advised(machine: Machine) -> None:
    machine.write(SECRET, "wrong", mode="600")
    machine.run("systemctl", "reload", SERVICE)
    said = machine.run("prosody-sidecar", "doctor", check=False).stdout
    assert f"the secret in {SECRET} was tested and refused; the running service still has the older one" in said
    assert "correct this file before any restart" in said
    assert "-> run: systemctl restart" not in said
    assert machine.ask()["allowed"] is True
    machine.write(SECRET, "right", mode="600")
    machine.run("systemctl", "restart", SERVICE)


def test_a_service_that_does_not_start_is_named_while_systemd_holds_its_sockets(machine: Machine) -> None:
    machine.run("mv", SECRET, f"{SECRET}.away")
    machine.run("systemctl", "restart", SERVICE, check=False)
    done = machine.run("prosody-sidecar", "status", check=False)
    assert (done.returncode, "systemctl status prosody-sidecar" in done.stderr) == (3, True)
    said = machine.run("prosody-sidecar", "doctor", check=False).stdout
    assert "no sidecar answers" in said
    machine.run("mv", f"{SECRET}.away", SECRET)
    machine.run("systemctl", "restart", SERVICE)
    assert machine.ask()["allowed"] is True


def test_the_stop_of_all_units_stops_and_the_stop_of_the_service_alone_does_not(machine: Machine) -> None:
    machine.run("systemctl", "stop", SERVICE)
    assert machine.ask()["allowed"] is True
    sockets = ("prosody-sidecar.socket", "prosody-sidecar-admin.socket", "prosody-sidecar-control.socket")
    machine.run("systemctl", "stop", *sockets, SERVICE)
    assert machine.run("prosody-sidecar", "status", check=False).returncode == 3
    assert machine.shown(SERVICE, "ActiveState") == "inactive"
    machine.run("systemctl", "start", SERVICE)
    assert machine.ask()["allowed"] is True
