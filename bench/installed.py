"""The Python of the measured programs.

`make bench` measures the sidecar as an operator has it: with Debian's Python and what packaging/install.sh puts on a
machine. That is the packages of the lock file, compiled, and none that only tests need. A quick run and the tests use
the Python that runs them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_FOLDER = _ROOT / ".cache" / "bench"
_INSTALLED = _FOLDER / "usr" / "lib" / "prosody-sidecar" / "bin" / "python3"

_in_use = sys.executable


def python() -> str:
    """The path of the interpreter. With the option -P it does not look into this checkout."""
    return _in_use


def version() -> str:
    """Its version."""
    program = "import platform; print(platform.python_version())"
    return subprocess.run((python(), "-c", program), capture_output=True, text=True, check=True).stdout.strip()


def install() -> str | None:
    """Install the sidecar of this checkout into a folder of its own, and use it from now on; needs the network. Returns
    why this could not be done."""
    global _in_use  # noqa: PLW0603 - one process measures one of the two
    environ = {**os.environ, "PREFIX": "/usr", "DESTDIR": str(_FOLDER), "MODULES": "/usr/share/prosody-sidecar/prosody"}
    command = (str(_ROOT / "packaging" / "install.sh"), "install")
    try:
        subprocess.run(command, env=environ, cwd=_ROOT, capture_output=True, text=True, check=True)
    except OSError as error:
        return str(error)
    except subprocess.CalledProcessError as error:
        return str(error.stderr or error.stdout).strip()[-400:]
    _in_use = str(_INSTALLED)
    return None
