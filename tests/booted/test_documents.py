"""The commands of README and docs/operating.md, typed on a booted Debian from the first to the last.

`nano` and the editor of `systemctl edit` are replaced by scripts that write what the page says.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.booted.machine import ROOT, Debian, Machine
from tests.booted.test_removal import CONFIGURATION, ROOMS

MEET = "/etc/prosody/conf.d/meet.example.com.cfg.lua"
BLOCK = re.compile(r"^( *)```sh\n(.*?)^ *```\n(?:\n *```ini\n(.*?)^ *```)?", re.M | re.S)
NOT_HERE = ("make", "sudo make", "prosody-sidecar status --watch")
"""What needs a checkout, which tests/booted/build.py and test_install.py see to, or a terminal."""

SUDO = '#!/bin/sh\nexec "$@"\n'
NANO = f"""#!/bin/sh
for file; do :; done
case $file in
    */sidecar.yaml) sed -i "s|url: https://api.example.com.*|url: http://127.0.0.1:8790/webhooks/jitsi|" "$file" ;;
    */listen-token) printf '%s\\n' a-new-token-of-prosody >"$file" ;;
    {MEET}) sed -i '/webhook/d' "$file" ;;
    *) cat /run/written >"$file" ;;
esac
"""
"""Also the editor of `systemctl edit`, which may give it the number of a line first."""

STAND_IN = "[Service]\nExecStart=/bin/sleep infinity\n"


class Line(NamedTuple):
    """A line of a page, and the text that the page says to write where the line begins an editor."""

    text: str
    written: str


def lines() -> list[Line]:
    found = []
    for page in (ROOT / "README.md", ROOT / "docs" / "operating.md"):
        text = page.read_text()
        if page.name == "README.md":
            text = text.partition("## Beside a real Jitsi")[2].partition("\n## ")[0]
        for _, block, written in BLOCK.findall(text):
            for line in block.splitlines():
                command = line.strip().partition("   #")[0].rstrip()
                if command and not command.startswith(NOT_HERE):
                    found.append(Line(command, re.sub(r"(?m)^ +", "", written or "")))
    return found


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, debian: Debian, packages: dict[Debian, Path]
) -> Iterator[Machine]:
    shared = tmp_path_factory.mktemp("shared")
    (shared / "dist").mkdir()
    shutil.copy(packages[debian], shared / "dist")
    shared.chmod(0o755)
    with Machine(shared, debian) as booted:
        booted.write("/usr/local/bin/sudo", SUDO, mode="755")
        booted.write("/usr/local/bin/nano", NANO, mode="755")
        booted.write("/etc/prosody/prosody.cfg.lua", CONFIGURATION)
        booted.write(MEET, ROOMS)
        booted.write("/etc/prosody-sidecar/listen-token", "a-token-of-prosody", mode="600")
        booted.write("/etc/prosody-sidecar/admin-token", "a-token-of-an-operator", mode="600")
        for name in ("jicofo", "jitsi-videobridge2"):
            booted.write(f"/run/systemd/system/{name}.service", STAND_IN)
        booted.run("useradd", "alice")
        yield booted


def backend_starts(machine: Machine) -> None:
    order = ("prosody-sidecar", "demo-backend", "--port", "8790", "--secret", "your-secret-key-here")
    machine.run("systemd-run", "--quiet", "--collect", "--unit=backend", *order)
    answers = "until exec 3<>/dev/tcp/127.0.0.1/8790; do sleep 0.2; done"
    machine.run("timeout", "60", "bash", "-c", answers)


def test_the_commands_work_as_they_stand(machine: Machine) -> None:
    failed = []
    for line in lines():
        if "systemctl edit" in line.text:
            machine.write("/run/written", line.written)
            typed = f"SYSTEMD_EDITOR=nano script -qec {shlex.quote(line.text)} /dev/null"
        else:
            typed = line.text.replace("your-server", "localhost").replace("the-shared-secret", "your-secret-key-here")
        if "grep" in typed:
            machine.ask("standup")
        done = machine.run("bash", "-o", "pipefail", "-c", f"cd /shared && {typed}", check=False)
        if done.returncode != 0 and "doctor" not in typed:  # Prosody's module has no link yet, or is not loaded
            failed.append(f"{typed}: {done.returncode} {done.stdout}{done.stderr}")
        if "dpkg --install" in typed and machine.shown("backend", "ActiveState") != "active":
            backend_starts(machine)
    assert "\n".join(failed) == ""
    assert machine.run("dpkg", "--status", "prosody-sidecar", check=False).returncode != 0  # the last one purges it


def test_there_are_such_commands() -> None:
    texts = [line.text for line in lines()]
    assert len(texts) > 30
    for part in ("systemctl enable --now", "check --online", "outbox retry", "dpkg --purge", "module:reload"):
        assert any(part in text for text in texts), part
