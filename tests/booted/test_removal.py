"""The sidecar is taken off a machine whose Prosody is configured to ask it: nobody gets in until the operator says so.

On a booted Debian with its own Prosody, first with the Debian package, then with make. The tests of this file build on
each other. Prosody's own options that restrict rooms are not set: only the guard refuses.
"""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.build import install
from tests.booted.machine import ROOT, Debian, Machine

GUARD = "/usr/share/jitsi-meet/prosody-plugins/mod_muc_webhook.lua"
MEET = "/etc/prosody/conf.d/meet.cfg.lua"
CONFIGURATION = """
admin_socket = "/run/prosody/prosody.sock"
pidfile = "/run/prosody/prosody.pid"
plugin_paths = { "/usr/share/jitsi-meet/prosody-plugins" }
modules_enabled = { "saslauth"; "disco"; "ping"; "admin_shell" }
modules_disabled = { "s2s" }
c2s_require_encryption = false
log = { info = "*syslog" }
VirtualHost "localhost"
    authentication = "anonymous"
Include "conf.d/*.cfg.lua"
"""
ROOMS = """
Component "conference.localhost" "muc"
    modules_enabled = {
        "muc_webhook";
    }
    muc_room_locking = false
    muc_webhook_url = "http://127.0.0.1:8788/webhooks/jitsi"
"""
BAD_NEWS = "cancel/not-allowed: Meeting has been cancelled"
DOWN = "wait/internal-server-error: This server cannot check now who may join. Please try again later."


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]
) -> Iterator[Machine]:
    shared = tmp_path_factory.mktemp("shared")
    shutil.copy(packages[debian], shared / "sidecar.deb")
    install(debian, shared / "installed")
    for name in ("packaging", "systemd", "lua"):
        shutil.copytree(ROOT / name, shared / "checkout" / name)
    shutil.copy(ROOT / "Makefile", shared / "checkout")
    shared.chmod(0o755)
    with Machine(shared, debian) as booted:
        booted.write("/etc/prosody/prosody.cfg.lua", CONFIGURATION)
        yield booted


def restart_prosody(machine: Machine) -> None:
    machine.run("systemctl", "reset-failed", "prosody", check=False)  # systemd counts restarts in quick succession
    machine.run("systemctl", "restart", "prosody")
    until = time.monotonic() + 20
    while "conference.localhost" not in machine.run("prosodyctl", "shell", "host:list()", check=False).stdout:
        assert time.monotonic() < until, machine.run("journalctl", "-u", "prosody", "-n", "30").stdout
        time.sleep(0.2)


def start_sidecar(machine: Machine) -> None:
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", "backend", check=False)
    backend = ("prosody-sidecar", "demo-backend", "--port", "8790", "--secret", "secret")
    machine.run("systemd-run", "--quiet", "--collect", "--unit=backend", *backend)
    machine.write("/etc/prosody-sidecar/sidecar.yaml", "backend:\n  url: http://127.0.0.1:8790/webhooks/jitsi\n")
    machine.write("/etc/prosody-sidecar/webhook-secret", "secret", mode="600")
    machine.run("systemctl", "enable", "--now", "prosody-sidecar")


def follow(machine: Machine, said: str) -> None:
    """What the message says, in its order."""
    line = re.search(rf"^ +{MEET}:(\d+): .*muc_webhook", said, re.M)
    last = re.search(r"3\. run: (rm \S+)$", said, re.M)
    assert line is not None, said
    assert last is not None, said
    machine.run("sed", "-i", f"{line[1]}d", MEET)
    restart_prosody(machine)
    machine.run(*last[1].split())


def test_a_user_whom_the_backend_denies_is_refused(machine: Machine) -> None:
    machine.run("dpkg", "--install", "/shared/sidecar.deb")
    start_sidecar(machine)
    machine.write(MEET, ROOMS)
    restart_prosody(machine)
    assert machine.join("standup") == "joined"
    assert machine.join("cancelled-review") == BAD_NEWS


def test_the_command_that_an_upgrade_names_loads_the_module(machine: Machine) -> None:
    said = machine.run("dpkg", "--install", "/shared/sidecar.deb").stdout
    command = re.search(r"To load this one, run: (.*)$", said, re.M)
    assert command is not None, said
    machine.run("rm", "-r", "/usr/share/jitsi-meet/prosody-plugins/muc_webhook")
    restart_prosody(machine)
    assert machine.join("standup") == DOWN
    machine.run("dpkg", "--install", "/shared/sidecar.deb")
    assert "Reloaded on conference.localhost" in machine.run("bash", "-c", command[1]).stdout
    assert machine.join("standup") == "joined"
    assert machine.join("cancelled-review") == BAD_NEWS


def test_the_package_is_removed_and_purged_and_nobody_gets_in(machine: Machine) -> None:
    for order in ("--remove", "--purge"):
        said = machine.run("dpkg", order, "prosody-sidecar").stdout
        assert "stays and refuses every join" in said
        assert machine.join("cancelled-review").startswith("wait/")
        restart_prosody(machine)
        assert machine.join("cancelled-review") == DOWN
        assert machine.join("standup") == DOWN
        assert "gate is DOWN" in machine.run("prosodyctl", "shell", "muc_webhook:status()").stdout
    follow(machine, said)
    assert machine.run("find", "/usr/share/jitsi-meet/prosody-plugins", "-type", "f").stdout == ""
    assert machine.join("cancelled-review") == "joined"  # as the operator wanted it


def test_the_same_with_make(machine: Machine) -> None:
    machine.run("cp", "-a", "/shared/installed/.", "/")
    start_sidecar(machine)
    machine.write(MEET, ROOMS)
    restart_prosody(machine)
    assert machine.join("standup") == "joined"
    assert machine.join("cancelled-review") == BAD_NEWS
    said = machine.run("make", "--silent", "-C", "/shared/checkout", "uninstall").stdout
    assert machine.run("systemctl", "is-active", "prosody-sidecar.socket", check=False).stdout.strip() == "inactive"
    assert machine.join("cancelled-review").startswith("wait/")
    restart_prosody(machine)
    assert machine.join("cancelled-review") == DOWN
    follow(machine, said)
    assert machine.run("test", "-e", GUARD, check=False).returncode == 1
    assert machine.join("cancelled-review") == "joined"
