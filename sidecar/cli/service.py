"""`prosody-sidecar run` without the library for commands: it would be 1 MB of the service's memory."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from sidecar.config.named_files import examine_with_files
from sidecar.daemon import lifecycle
from sidecar.errors import SidecarError
from sidecar.telemetry.lines import PRIORITIES, is_the_journal

DEFAULT_FILES = (Path("/etc/prosody-sidecar/sidecar.yaml"), Path("config/sidecar.yaml"))


def found(file: Path | None) -> Path:
    """The config file that is meant."""
    if file is not None:
        return file
    # Unlike Path.exists, this raises nothing where this user may not look into the folder.
    return next((each for each in DEFAULT_FILES if os.path.exists(each)), DEFAULT_FILES[0])


def serve(file: Path | None) -> None:
    """Run the sidecar until it is stopped. Raises SidecarError if it cannot start."""
    source = found(file)
    examined = examine_with_files(source, os.environ)
    asyncio.run(lifecycle.run(examined.usable(), source, advice=examined.warning_lines()))


def complain(text: str, level: str = "error") -> None:
    """Write to standard error. If the journal reads it, each line has its priority."""
    mark = PRIORITIES[level] if is_the_journal(sys.stderr, os.environ) else ""
    for line in text.splitlines():
        sys.stderr.write(f"{mark}{line}\n")
    sys.stderr.flush()


def main(file: Path | None) -> None:
    """The same as a program: an error for operators is its last words, and its exit code is 1."""
    try:
        serve(file)
    except SidecarError as error:
        complain(str(error))
        raise SystemExit(1) from None
