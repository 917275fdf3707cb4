"""The machine and the versions, without which the figures have no meaning."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from sidecar import __version__

PROSODY_13 = Path(__file__).parents[1] / ".cache" / "prosody13" / "var" / "lib" / "dpkg"
PACKAGES = ("nginx", "libnginx-mod-http-lua", "varnish", "wrk", "prosody")


def described() -> dict[str, str]:
    """The machine and the versions, by name."""
    about = {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "prosody-sidecar": __version__,
        "Python": platform.python_version(),
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


def _installed(name: str, *options: str) -> str:
    """The version from dpkg, not from the program: `prosody --version` starts a server."""
    asked = ["dpkg-query", *options, "--show", "--showformat=${Version}", name]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "not installed"
    return done.stdout.strip()
