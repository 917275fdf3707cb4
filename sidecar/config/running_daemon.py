"""Where the running daemon is, as far as a config file says it that has mistakes elsewhere.

The daemon runs with older settings then, and an operator needs the commands most.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.config.loader import Examined, examine, examine_file
from sidecar.config.models import Settings
from sidecar.errors import ConfigError

SECTIONS = ("admin", "listen", "state_dir")


@dataclass(slots=True)
class Unread(Examined):
    """A file that is there, but cannot be read: no place in it is at fault."""

    lines: list[str] = field(default_factory=list)

    def problem_lines(self) -> list[str]:
        """Why it cannot be read."""
        return self.lines


def settings_of_the_running(examined: Examined, file: Path, environ: Mapping[str, str]) -> Settings:
    """The settings, where each that is wrong has its default. If the file is not even YAML, only those of SECTIONS
    differ from the defaults."""
    if examined.settings is not None:
        return examined.settings
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:
        text = ""
    legible = [part for name in SECTIONS if _can_be_read(part := _section(text, name), environ)]
    found = examine("\n".join(legible), str(file), environ).settings
    assert found is not None, "without a mistake in the YAML there are settings"
    return found


def _section(text: str, name: str) -> str:
    """The lines of one section of the file."""
    found = re.search(rf"^{name}:.*(?:\n(?:[ \t].*)?)*", text, re.M)
    return found[0] if found else ""


def _can_be_read(part: str, environ: Mapping[str, str]) -> bool:
    return examine(part, "", environ).settings is not None


def examine_running(file: Path, environ: Mapping[str, str]) -> tuple[Examined, Settings]:
    """The file as it is, and the settings with which to find the daemon. Raises ConfigError if there is no file."""
    try:
        examined = examine_file(file, environ)
    except ConfigError as error:
        if isinstance(error.__context__, FileNotFoundError):
            raise
        examined = Unread(str(file), lines=error.problems)
    return examined, settings_of_the_running(examined, file, environ)
