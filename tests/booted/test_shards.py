"""The commands of docs/shards.md, typed on a booted Debian that has the package, with an engine beside it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.booted.machine import ROOT, Debian, Machine
from tests.booted.test_documents import BLOCK, NANO, SUDO

CONFIG = "/etc/prosody-sidecar/sidecar.yaml"
BASE = "backend:\n  url: http://127.0.0.1:8790/webhooks/jitsi\n"
PAGE = (ROOT / "docs" / "shards.md").read_text()

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


def section(title: str) -> str:
    """The part of the page below a heading, up to the next one of the same kind."""
    level = title.partition(" ")[0]
    return PAGE.partition(f"\n{title}\n")[2].partition(f"\n{level} ")[0]


class Typed:
    """A machine, and an engine that only it can reach."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def engine(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine where the engine is."""
        order = ["nsenter", "-t", str(self.machine.leader), "-n", *command]
        return subprocess.run(order, capture_output=True, text=True, check=True, timeout=20)

    def types(self, title: str) -> str:
        """All commands of a section, as they stand; returns what the last one prints."""
        said = ""
        for _, block, written in BLOCK.findall(section(title)):
            for line in map(str.strip, block.splitlines()):
                if line.startswith("redis-cli"):
                    said = self.engine("bash", "-o", "pipefail", "-c", line).stdout
                else:
                    self.machine.write("/run/written", textwrap.dedent(written or ""))
                    editing = f"SYSTEMD_EDITOR=nano script -qec {shlex.quote(line)} /dev/null"
                    typed = editing if "systemctl edit" in line else line
                    done = self.machine.run("bash", "-o", "pipefail", "-c", typed)
                    said = done.stdout
                    assert "warning: shared" not in done.stdout + done.stderr, line
        return said

    def shared(self) -> dict[str, Any] | None:
        """What the status has of the shared memory, when the service is in touch or has none."""
        wait = (
            "for n in $(seq 60); do prosody-sidecar status | grep -E '^shared +in touch' && break; "
            f"grep -q ^shared: {CONFIG} || break; sleep 0.5; done"
        )
        self.machine.run("bash", "-c", wait)
        found: dict[str, Any] | None = json.loads(self.machine.run("prosody-sidecar", "status", "--json").stdout)[
            "shared"
        ]
        return found


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]) -> Iterator[Typed]:
    shared = tmp_path_factory.mktemp("shared")
    shutil.copy(packages[debian], shared / "sidecar.deb")
    shared.chmod(0o755)
    with Machine(shared, debian) as booted:
        booted.write("/usr/local/bin/sudo", SUDO, mode="755")
        booted.write("/usr/local/bin/nano", NANO, mode="755")
        booted.run("dpkg", "--install", "/shared/sidecar.deb")
        booted.write(CONFIG, BASE)
        booted.write("/etc/prosody-sidecar/webhook-secret", "right", mode="600")
        demo = ("prosody-sidecar", "demo-backend", "--port", "8790", "--secret", "right")
        booted.run("systemd-run", "--quiet", "--unit=backend", *demo)
        booted.run("systemctl", "enable", "--now", "prosody-sidecar")
        nsenter = ("nsenter", "-t", str(booted.leader), "-n")
        folder = tmp_path_factory.mktemp("engine")
        engine = subprocess.Popen(
            [*nsenter, "redis-server", "--port", "6379", "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
            stdout=subprocess.DEVNULL,
        )
        try:
            it = Typed(booted)
            rule = re.search(r"`(ACL SETUSER sidecar .*?)`", PAGE)
            assert rule is not None
            it.engine(
                "bash", "-c", f"until redis-cli ping; do sleep 0.1; done; redis-cli {shlex.join(rule[1].split())}"
            )
            yield it
        finally:
            engine.kill()
            engine.wait()


def test_a_newcomer_gets_there_by_the_steps_as_they_stand(typed: Typed) -> None:
    settings = re.search(r"^ *```yaml\n(.*?)^ *```", section("## Set up"), re.M | re.S)
    assert settings is not None
    here = settings[1].replace("rediss://sidecar@engine.example.com", "redis://sidecar@127.0.0.1")
    typed.machine.write(CONFIG, BASE + textwrap.dedent(here))
    typed.types("## Set up")
    found = typed.shared()
    assert found is not None
    assert (found["in_touch"], found["members"]) == (True, 1)
    modes = typed.machine.run(
        "stat", "-c", "%U %a", "/etc/prosody-sidecar/shared-key", "/etc/prosody-sidecar/shared-password"
    )
    assert modes.stdout.split("\n")[:2] == ["root 600"] * 2
    refused = re.findall(r"^object\n(.+)$", typed.engine("redis-cli", "ACL", "LOG").stdout, re.M)
    assert set(refused) <= {"config|get", "client|setinfo"}, refused
    assert typed.machine.ask()["allowed"] is True


def test_a_changed_key_is_named_before_the_restart(typed: Typed) -> None:
    key = "/etc/prosody-sidecar/shared-key"
    typed.machine.write(key, "n" * 32, mode="600")
    assert f"{key} has changed since the service was started" in typed.machine.run("prosody-sidecar", "check").stderr
    typed.machine.run("systemctl", "restart", "prosody-sidecar")
    assert f"{key} has changed" not in typed.machine.run("prosody-sidecar", "check").stderr
    assert typed.shared()


def test_a_copied_machine_is_in_touch_without_what_it_had_on_disk(typed: Typed) -> None:
    typed.types("### A copied machine")
    found = typed.shared()
    assert found is not None
    assert found["in_touch"] is True


def test_nothing_stays_of_it_if_all_is_removed(typed: Typed) -> None:
    typed.machine.write(CONFIG, BASE)
    typed.machine.run("systemctl", "revert", "prosody-sidecar.service")
    typed.machine.run("systemctl", "restart", "prosody-sidecar")
    typed.types("### Remove a shard, or all of it")
    assert typed.shared() is None
    assert typed.engine("redis-cli", "KEYS", "*").stdout.strip() == ""
    assert "sidecar" not in typed.engine("redis-cli", "ACL", "LIST").stdout
    assert typed.machine.ask()["allowed"] is True
