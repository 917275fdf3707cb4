"""What `prosody-sidecar check` says about a config: the file itself, and the files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.config.models import Settings
from sidecar.config.named_files import examine_with_files
from sidecar.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Report:
    """Lines as `file:line:column: path: text`; the settings are None if the config cannot be used."""

    problems: list[str]
    warnings: list[str]
    settings: Settings | None = None


def check(file: Path, environ: Mapping[str, str]) -> Report:
    """Check everything that can be checked without the backend."""
    try:
        examined = examine_with_files(file, environ)
    except ConfigError as error:
        return Report(error.problems, [])
    problems = examined.problem_lines()
    return Report(problems, examined.warning_lines(), None if problems else examined.settings)
