"""The Debian package on a booted Debian with a real systemd, in the order in which an operator goes.

The tests of this file build on each other: install, configure, run, reload, restart, hang, take off.
"""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.machine import PYTHON, Debian, Machine

SECRET = "canary-0123456789abcdef"
SERVICE = "prosody-sidecar.service"
CONFIG = "/etc/prosody-sidecar/sidecar.yaml"
GOOD = "backend:\n  url: http://127.0.0.1:8790/webhooks/jitsi\n  secret_file: /etc/prosody-sidecar/webhook-secret\n"
BAD = "backend:\n  url: http://127.0.0.1:8790/webhooks/jitsi\n  max_in_flight: many\n"


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]
) -> Iterator[Machine]:
    shared = tmp_path_factory.mktemp("shared")
    shutil.copy(packages[debian], shared / "sidecar.deb")
    shutil.copy(Path(__file__).parent / "load.py", shared)
    shared.chmod(0o755)
    with Machine(shared, debian) as booted:
        yield booted


def under_load(machine: Machine, seconds: float) -> "subprocess.Popen[str]":
    """Begin to knock, and wait until the first answers are in."""
    load = machine.begin(PYTHON, "/shared/load.py", str(seconds))
    time.sleep(1)
    return load


def outcome(load: "subprocess.Popen[str]") -> dict[str, float]:
    out, errors = load.communicate(timeout=60)
    assert load.returncode == 0, errors
    found: dict[str, float] = json.loads(out)
    print(found)
    return found


def test_it_installs_without_a_question_and_starts_nothing(machine: Machine) -> None:
    machine.run("dpkg", "--install", "/shared/sidecar.deb")
    assert machine.shown(SERVICE, "ActiveState") == "inactive"
    assert "prosody-sidecar, version" in machine.run("prosody-sidecar", "--version").stdout
    machine.run("test", "-f", "/usr/share/jitsi-meet/prosody-plugins/mod_muc_webhook.lua")


def test_systemd_finds_nothing_wrong_with_the_units(machine: Machine) -> None:
    units = (SERVICE, "prosody-sidecar.socket", "prosody-sidecar-admin.socket", "prosody-sidecar-control.socket")
    done = machine.run("systemd-analyze", "verify", "--man=no", *units)
    assert done.stdout + done.stderr == ""
    security = machine.run("systemd-analyze", "security", SERVICE, check=False).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", security)
    assert exposure is not None
    assert float(exposure[1]) <= 1.3


def test_it_starts_with_the_secret_as_a_credential(machine: Machine) -> None:
    backend = ("prosody-sidecar", "demo-backend", "--port", "8790", "--secret", SECRET)
    machine.run("systemd-run", "--quiet", "--unit=backend", *backend)
    machine.write(CONFIG, GOOD)
    machine.write("/etc/prosody-sidecar/webhook-secret", SECRET, mode="600")
    machine.run("systemctl", "enable", "--now", "prosody-sidecar")
    assert machine.shown(SERVICE, "ActiveState") == "active"
    assert machine.ask()["allowed"] is True
    time.sleep(1.5)
    stat = machine.run("stat", "--format=%U %G %a", "/run/prosody-sidecar/admin.sock").stdout
    assert stat.split() == ["root", "prosody-sidecar-admin", "660"]
    assert "forgotten: " in machine.run("prosody-sidecar", "purge", "--room", "elsewhere").stdout
    as_nobody = machine.run("runuser", "-u", "nobody", "--", "prosody-sidecar", "purge", "--all", check=False)
    assert (as_nobody.returncode, "prosody-sidecar-admin" in as_nobody.stdout + as_nobody.stderr) == (1, True)
    assert machine.shown(SERVICE, "StatusText").startswith("Well: 1 answers remembered")


def test_it_runs_as_nobody_in_particular(machine: Machine) -> None:
    pid = machine.shown(SERVICE, "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status").stdout
    assert int(re.search(r"Uid:\s+(\d+)", status)[1]) >= 61184  # type: ignore[index]
    assert re.search(r"CapEff:\s+0+$", status, re.M)
    assert "Seccomp:\t2" in status
    assert SECRET not in machine.run("systemctl", "show", SERVICE).stdout
    assert SECRET not in machine.run("cat", f"/proc/{pid}/environ").stdout


def test_a_reload_with_a_bad_and_a_good_file_loses_no_request(machine: Machine) -> None:
    load = under_load(machine, 8)
    machine.write(CONFIG, BAD)
    bad = machine.run("systemctl", "reload", SERVICE, check=False)
    said = machine.shown(SERVICE, "StatusText")
    for _ in range(20):  # systemd reads what the service says after it has seen the end of the command
        if not said.startswith("Well"):
            break
        time.sleep(0.2)
        said = machine.shown(SERVICE, "StatusText")
    machine.write(CONFIG, GOOD + "  max_in_flight: 32\n")
    machine.run("systemctl", "reload", SERVICE)
    assert bad.returncode == 1
    assert f"{CONFIG}:3:3: backend.max_in_flight: expected a whole number" in machine.journal()
    assert said.startswith("Degraded: config: the last reload was refused")
    found = outcome(load)
    assert set(found) == {"answered", "slowest_seconds"}
    assert found["answered"] > 100


def test_a_restart_refuses_no_connection_and_loses_no_request(machine: Machine) -> None:
    load = under_load(machine, 10)
    before = machine.shown(SERVICE, "MainPID")
    machine.run("systemctl", "restart", SERVICE)
    assert machine.shown(SERVICE, "MainPID") != before
    found = outcome(load)
    assert set(found) == {"answered", "slowest_seconds"}


def test_what_was_remembered_before_a_restart_answers_while_the_backend_is_away(machine: Machine) -> None:
    machine.run("systemctl", "stop", "backend")
    machine.run("systemctl", "restart", SERVICE)
    assert machine.ask()["allowed"] is True
    assert machine.ask(user="stranger@example.org")["allowed"] is False


def test_one_that_hangs_is_killed_and_started_anew(machine: Machine) -> None:
    machine.write(f"/run/systemd/system/{SERVICE}.d/soon.conf", "[Service]\nWatchdogSec=2\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", SERVICE)
    before = machine.shown(SERVICE, "MainPID")
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", SERVICE)
    begun = time.monotonic()
    while machine.shown(SERVICE, "NRestarts") == "0" and time.monotonic() - begun < 30:
        time.sleep(0.2)
    assert machine.ask()["allowed"] is True  # the socket held the connection until the new one was there
    print(f"answered {time.monotonic() - begun:.1f} s after it hung")
    assert machine.shown(SERVICE, "MainPID") != before
    assert "watchdog" in machine.run("journalctl", "-u", SERVICE, "--no-pager", "-o", "cat").stdout.lower()


def test_the_secret_is_in_no_log_and_nowhere_in_the_state(machine: Machine) -> None:
    assert SECRET not in machine.run("journalctl", "-u", SERVICE, "--no-pager", "-o", "verbose").stdout
    assert machine.run("grep", "-r", "-l", SECRET, "/var/lib/private", check=False).stdout == ""
    assert SECRET in machine.run("grep", "-r", SECRET, "/etc/prosody-sidecar").stdout


def test_it_goes_without_a_trace(machine: Machine) -> None:
    machine.run("dpkg", "--purge", "prosody-sidecar")
    assert machine.run("systemctl", "is-active", SERVICE, "prosody-sidecar.socket", check=False).returncode != 0
    left = machine.run("find", "/usr", "/etc", "/var/lib", "-name", "*prosody-sidecar*", "-not", "-path", "*/dpkg/*")
    assert left.stdout == ""
