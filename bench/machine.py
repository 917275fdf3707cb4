"""The machine and the versions, without which the figures have no meaning."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from bench import installed
from sidecar import __version__

PROSODY_13 = Path(__file__).parents[1] / ".cache" / "prosody13" / "var" / "lib" / "dpkg"
PACKAGES = ("nginx", "libnginx-mod-http-lua", "varnish", "wrk", "prosody")


def described() -> dict[str, str]:
    """The machine and the versions, by name."""
    about = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "prosody-sidecar": f"{__version__}, commit {_commit()}",
        "Python": installed.version(),
        "aiohttp": importlib.metadata.version("aiohttp"),
    }
    about |= {name: _installed(name) for name in PACKAGES}
    if PROSODY_13.exists():
        about["prosody, the other"] = _installed("prosody", f"--admindir={PROSODY_13}")
    return about


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _commit() -> str:
    return _output("git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD") or "unknown"


def _installed(name: str, *options: str) -> str:
    """The version from dpkg, not from the program: `prosody --version` starts a server."""
    return _output("dpkg-query", *options, "--show", "--showformat=${Version}", name) or "not installed"


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
