"""A Debian 12 or 13 with a systemd of its own, booted by systemd-nspawn from a folder in .cache, entered with nsenter.

What is done in it stays in memory and is gone when it stops. It has a loopback of its own and no other network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
PACKAGES = "systemd,systemd-sysv,dbus,python3"
ON_TOP = ("prosody", "lua-unbound", "make", "openssl", "python3-venv")
"""Installed when the rest works: Prosody's own installation needs a system that is whole."""
PYTHON = "/usr/lib/prosody-sidecar/bin/python3"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
}


class CannotBoot(Exception):
    """What is missing on this machine, and how to get it."""


def mirror() -> list[str]:
    """Where this machine gets its own Debian packages, as debootstrap's last argument; nothing: its own default."""
    listed = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for file in listed:
        if file.suffix in (".list", ".sources") and file.is_file():
            found = re.search(r"^(?:deb|URIs:)\s.*?(https?://\S+?debian)/?(?:\s|$)", file.read_text(), re.M)
            if found is not None:
                return [found[1]]
    return []


@dataclass(frozen=True, slots=True)
class Debian:
    """A release, and the version of its Python."""

    number: int
    suite: str
    full: str
    """The whole version of its Python."""

    @property
    def python(self) -> str:
        """The version of its Python without the last number."""
        return self.full.rpartition(".")[0]

    def __str__(self) -> str:
        return f"Debian {self.number}"

    def folder(self) -> Path:
        """The folder with this Debian in it; made once, beside its place and moved there when whole."""
        folder = CACHE / self.suite
        made_of = folder / "made-of"
        wanted = " ".join([PACKAGES, *ON_TOP])
        if made_of.exists() and made_of.read_text() == wanted:
            return folder
        for tool, package in (("debootstrap", "debootstrap"), ("systemd-nspawn", "systemd-container")):
            if shutil.which(tool) is None:
                raise CannotBoot(f"{tool} is missing; type: apt-get install {package}")
        if os.geteuid() != 0:
            raise CannotBoot("booting a Debian needs root; type: sudo make test-systemd")
        CACHE.mkdir(exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{self.suite}.", dir=CACHE))
        work.chmod(0o755)
        try:
            _make("debootstrap", "--variant=minbase", f"--include={PACKAGES}", self.suite, str(work), *mirror())
            policy = work / "usr/sbin/policy-rc.d"  # nothing of what is installed may start a daemon
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
            _make("chroot", str(work), "apt-get", "install", "--yes", "--no-install-recommends", *ON_TOP)
            policy.unlink()
        except CannotBoot:
            shutil.rmtree(work, ignore_errors=True)
            raise
        (work / "made-of").write_text(wanted)
        shutil.rmtree(folder, ignore_errors=True)
        work.rename(folder)
        return folder


BOOKWORM = Debian(12, "bookworm", "3.11.2")
TRIXIE = Debian(13, "trixie", "3.13.5")
DEBIANS = (BOOKWORM, TRIXIE)


def _make(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise CannotBoot(f"{command[0]} failed: {(done.stdout + done.stderr)[-600:]}")


class Machine:
    """Booted on entry, gone on exit."""

    def __init__(self, shared: Path, debian: Debian = BOOKWORM) -> None:
        """`shared` is seen inside as /shared, read-only."""
        name = f"sidecar-{os.getpid()}-{debian.suite}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed on exit
        self._nspawn = subprocess.Popen(
            [
                *(
                    "systemd-nspawn",
                    "--quiet",
                    f"--directory={debian.folder()}",
                    "--volatile=overlay",
                    f"--machine={name}",
                ),
                *("--boot", "--register=no", "--keep-unit", "--private-network", "--console=pipe"),
                f"--bind-ro={shared}:/shared",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},  # Debian 13 boots with nothing else
        )
        self.leader = 0

    def __enter__(self) -> Machine:
        until = time.monotonic() + 60
        while time.monotonic() < until and self._nspawn.poll() is None:
            self.leader = self.leader or self._find_leader()
            if self.leader and self.run("systemctl", "is-system-running", check=False).stdout.strip() in (
                "running",
                "degraded",
            ):
                return self
            time.sleep(0.3)
        self._log.seek(0)
        said = self._log.read().decode(errors="replace")[-2000:]
        self.__exit__()
        raise CannotBoot(f"systemd-nspawn did not boot:\n{said}")

    def __exit__(self, *_: object) -> None:
        if self.leader and self._nspawn.poll() is None:
            self.run("systemctl", "--force", "poweroff", check=False)
        try:
            self._nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._log.close()

    def _find_leader(self) -> int:
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def _command(self, *command: str) -> list[str]:
        settings = (f"{name}={value}" for name, value in ENVIRONMENT.items())
        return ["nsenter", "-t", str(self.leader), "-a", "-C", "env", "-i", *settings, *command]

    def run(self, *command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        done = subprocess.run(
            self._command(*command), input=stdin, capture_output=True, text=True, check=False, timeout=120
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def begin(self, *command: str) -> subprocess.Popen[str]:
        """Start a command inside."""
        return subprocess.Popen(
            self._command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def join(self, room: str) -> str:
        """How somebody fares who joins a room on the machine's Prosody: "joined", or the error."""
        order = ["nsenter", "-t", str(self.leader), "-n", sys.executable, "-m", "tests.booted.join", room]
        done = subprocess.run(order, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pid_of(self, inside: str) -> int:
        """The number out here of a process that has this number inside."""
        space = Path(f"/proc/{self.leader}/ns/pid").readlink()
        for status in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):  # it has just ended
                numbers = re.search(r"^NSpid:\s+(\d+)\s.*?(\d+)$", status.read_text(), re.M)
                if numbers and numbers[2] == inside.strip() and (status.parent / "ns/pid").readlink() == space:
                    return int(numbers[1])
        raise LookupError(f"no process {inside} in this machine")

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file inside."""
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, stdin=text)

    def shown(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self) -> str:
        """Everything the sidecar has written."""
        return self.run("journalctl", "-u", "prosody-sidecar.service", "--no-pager", "-o", "cat").stdout

    def ask(self, room: str = "standup", user: str = "ann@example.org") -> Any:
        """Put one question to the sidecar, as Prosody would."""
        script = (
            "import json, sys, urllib.request as u; "
            f"r = u.Request('http://127.0.0.1:8788/webhooks/jitsi/validate-access', "
            f"json.dumps({{'roomName': {room!r}, 'userJid': {user!r}, 'timestamp': 0}}).encode(), "
            "{'Content-Type': 'application/json'}); "
            "print(u.urlopen(r, timeout=10).read().decode())"
        )
        return json.loads(self.run(PYTHON, "-c", script).stdout)


def main() -> int:
    """Whether this machine can boot one at all; says why not."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            for debian in DEBIANS:
                with Machine(Path(folder), debian):
                    pass
        except CannotBoot as reason:
            sys.stderr.write(f"{reason}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
