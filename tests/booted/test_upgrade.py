"""Upgrade, downgrade, removal and installation again, on a booted Debian, under load.

The tests of this file build on each other. The earlier package is that of the first version, built from its commit.
"""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.booted.build import build_first
from tests.booted.machine import PYTHON, CannotBoot, Debian, Machine

SERVICE = "prosody-sidecar.service"
CONFIG = "/etc/prosody-sidecar/sidecar.yaml"
OWN = "# of the administrator\nbackend:\n  url: http://127.0.0.1:8790/webhooks/jitsi\n"


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]
) -> Iterator[Machine]:
    try:
        first = build_first(debian, tmp_path_factory.mktemp("first"))
    except CannotBoot as reason:
        pytest.skip(str(reason))
    shared = tmp_path_factory.mktemp("shared")
    shutil.copy(first, shared / "first.deb")
    shutil.copy(packages[debian], shared / "this.deb")
    shutil.copy(Path(__file__).parent / "load.py", shared)
    shared.chmod(0o755)
    with Machine(shared, debian) as booted:
        yield booted


def under_load(machine: Machine, *orders: tuple[str, ...]) -> dict[str, float]:
    """Joins while these commands run, each with an empty standard input, as an unattended upgrade has."""
    load = machine.begin(PYTHON, "/shared/load.py", "20")
    time.sleep(1)
    for order in orders:
        machine.run(*order)
    out, errors = load.communicate(timeout=90)
    assert load.returncode == 0, errors
    found: dict[str, float] = json.loads(out)
    print(found)
    return found


def version(machine: Machine) -> str:
    document = json.loads(machine.run("prosody-sidecar", "status", "--json", check=False).stdout)
    return str(document["version"])


def test_the_first_version_runs(machine: Machine) -> None:
    machine.run("dpkg", "--install", "/shared/first.deb")
    backend = ("prosody-sidecar", "demo-backend", "--port", "8790", "--secret", "secret")
    machine.run("systemd-run", "--quiet", "--unit=backend", *backend)
    machine.write(CONFIG, OWN)
    machine.write("/etc/prosody-sidecar/webhook-secret", "secret", mode="600")
    machine.run("systemctl", "enable", "--now", "prosody-sidecar")
    assert machine.ask()["allowed"] is True
    assert version(machine) == "0.1.0"


def test_an_upgrade_and_a_downgrade_refuse_nobody_and_keep_the_config(machine: Machine) -> None:
    found = under_load(machine, ("dpkg", "--install", "/shared/this.deb"))
    assert set(found) == {"answered", "slowest_seconds"}
    assert version(machine) != "0.1.0"
    assert machine.run("stat", "--format=%a", "/run/prosody-sidecar/admin.sock").stdout.strip() == "660"
    found = under_load(machine, ("dpkg", "--install", "--force-confold", "/shared/first.deb"))
    assert set(found) == {"answered", "slowest_seconds"}
    assert version(machine) == "0.1.0"
    machine.run("dpkg", "--install", "/shared/this.deb")
    assert machine.run("cat", CONFIG).stdout == OWN


def test_the_same_version_again_asks_nothing(machine: Machine) -> None:
    found = under_load(machine, ("dpkg", "--install", "/shared/this.deb"))
    assert set(found) == {"answered", "slowest_seconds"}
    assert machine.run("cat", CONFIG).stdout == OWN


def test_a_service_that_somebody_has_stopped_stays_stopped_on_an_upgrade(machine: Machine) -> None:
    units = (SERVICE, "prosody-sidecar.socket", "prosody-sidecar-admin.socket", "prosody-sidecar-control.socket")
    machine.run("systemctl", "stop", *units)
    machine.run("dpkg", "--install", "/shared/this.deb")
    assert machine.shown(SERVICE, "ActiveState") == "inactive"
    machine.run("systemctl", "start", SERVICE)


def test_a_package_that_is_installed_again_runs_as_before(machine: Machine) -> None:
    machine.run("dpkg", "--remove", "prosody-sidecar")
    assert machine.shown(SERVICE, "ActiveState") == "inactive"
    machine.run("dpkg", "--install", "/shared/this.deb")
    assert machine.shown(SERVICE, "ActiveState") == "active"
    assert machine.run("cat", CONFIG).stdout == OWN
    assert machine.ask()["allowed"] is True


def test_a_purge_leaves_nothing_that_is_enabled(machine: Machine) -> None:
    machine.run("dpkg", "--purge", "prosody-sidecar")
    left = machine.run("find", "/etc", "/usr", "/run/systemd/system", "-name", "*prosody-sidecar*").stdout
    assert left == ""
    machine.run("dpkg", "--install", "/shared/this.deb")
    assert machine.shown(SERVICE, "ActiveState") == "inactive"
    assert "https://api.example.com" in machine.run("cat", CONFIG).stdout
