"""Builds the image and runs it with podman, as root, without a registry.

python -m tests.container.podman   exit code 0 if this machine can; else the reason
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.booted.build import wheels
from tests.booted.machine import CannotBoot, mirror

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
BASE = "localhost/prosody-sidecar-base:12"
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
"""podman's own are above what an unprivileged machine allows."""


class CannotRun(Exception):
    """What is missing on this machine, and how to get it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str


@dataclass(frozen=True, slots=True)
class Image:
    """The image that was built, by its id: another checkout's tests may build theirs at the same time."""

    id: str

    def once(self, *command: str, entrypoint: str | None = None, **more: Any) -> Ended:
        """Run a container to its end."""
        options = ["--rm", *_options(**more), *([f"--entrypoint={entrypoint}"] if entrypoint else [])]
        done = _podman("run", *options, self.id, *command)
        return Ended(done.returncode, _without_noise(done.stdout + done.stderr))

    @contextmanager
    def running(self, **more: Any) -> Iterator[Running]:
        """A container of the daemon, in the network of this machine; gone at the end."""
        done = _podman("run", "--detach", *_options(**{"network": "host", **more}), self.id)
        if done.returncode:
            raise CannotRun(f"podman run failed: {done.stderr}")
        container = Running(done.stdout.strip())
        try:
            yield container
        finally:
            _podman("rm", "--force", "--time=1", container.name)


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs."""

    name: str

    def do(self, *command: str) -> Ended:
        """Run a command in it."""
        done = _podman("exec", self.name, *command)
        return Ended(done.returncode, _without_noise(done.stdout + done.stderr))

    def logs(self) -> str:
        """What it has written."""
        return _podman("logs", self.name).stdout

    def kill(self, signal: str) -> None:
        """Send it a signal."""
        _podman("kill", f"--signal={signal}", self.name)

    def start_again(self) -> None:
        """Start it after it has ended."""
        _podman("start", self.name)

    def state(self) -> dict[str, Any]:
        """What podman knows of it: Running, ExitCode ..."""
        known: dict[str, Any] = json.loads(_podman("inspect", self.name).stdout)[0]["State"]
        return known

    def becomes_ready(self, within: float = 15.0) -> float:
        """Wait until its health check passes; returns the seconds."""
        begun = time.monotonic()
        while self.do("prosody-sidecar", "healthcheck").code:
            if time.monotonic() - begun > within or not self.state()["Running"]:
                raise AssertionError(f"it does not get ready:\n{self.logs()}")
            time.sleep(0.2)
        return time.monotonic() - begun


def _options(
    *,
    volumes: Mapping[Path, str] | None = None,
    environment: Mapping[str, str] | None = None,
    network: str = "none",
    user: str | None = None,
    read_only: bool = True,
) -> list[str]:
    options = [
        *LIMITS,
        "--no-healthcheck",
        f"--network={network}",
        "--cap-drop=ALL" if user is None else f"--user={user}",
    ]
    options += ["--security-opt=no-new-privileges", *(["--read-only", "--read-only-tmpfs=false"] if read_only else [])]
    options += [f"--volume={outside}:{inside}" for outside, inside in (volumes or {}).items()]
    return options + [f"--env={name}={value}" for name, value in (environment or {}).items()]


def _podman(*command: str) -> subprocess.CompletedProcess[str]:
    # crun refuses machines with both kinds of cgroups; runc does not.
    runtime = shutil.which("runc") or "runc"
    return subprocess.run(
        ["podman", "--runtime", runtime, "--cgroup-manager=cgroupfs", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def _without_noise(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not re.match(r'time="[^"]*" level=', line))


def built() -> Image:
    """Build the image of this checkout; raises CannotRun."""
    for tool in ("podman", "runc", "debootstrap"):
        if shutil.which(tool) is None:
            raise CannotRun(f"{tool} is missing; run: tools/setup.sh container")
    if os.geteuid() != 0:
        raise CannotRun("making a base for the image needs root; run: sudo make test-container")
    if _podman("image", "exists", BASE).returncode:
        _make_base()
    try:
        packages = wheels("3.11")  # the base is Debian 12
    except CannotBoot as error:
        raise CannotRun(str(error)) from None
    done = _podman(
        "build", "--isolation=chroot", "--network=host", "--format=docker", f"--volume={packages}:/wheels:ro",
        f"--build-arg=BASE={BASE}", "--build-arg=PIP_ARGS=--no-index --find-links /wheels",
        "--file=packaging/container/Containerfile", "--quiet", str(ROOT),
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"the image cannot be built:\n{done.stdout}{done.stderr}")
    return Image(done.stdout.split()[-1])


def _make_base() -> None:
    with tempfile.TemporaryDirectory(prefix="base.", dir=_cache()) as folder:
        include = "--include=python3,python3-venv,ca-certificates"
        _make("debootstrap", "--variant=minbase", include, "bookworm", f"{folder}/root", *mirror())
        shutil.rmtree(f"{folder}/root/var/cache/apt")
        _make("tar", "-C", f"{folder}/root", "-cf", f"{folder}/base.tar", ".")
        done = _podman("import", f"{folder}/base.tar", BASE)
        if done.returncode:
            raise CannotRun(f"podman cannot import a base: {done.stderr}")


def _cache() -> Path:
    CACHE.mkdir(exist_ok=True)
    return CACHE


def _make(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise CannotRun(f"{command[0]} failed: {(done.stdout + done.stderr)[-2000:]}")


if __name__ == "__main__":
    try:
        ran = built().once("-c", "print('a container runs')", entrypoint="python3")
        sys.exit(0 if "a container runs" in ran.out else f"a container does not run here: {ran.out}")
    except CannotRun as error:
        sys.exit(str(error))
