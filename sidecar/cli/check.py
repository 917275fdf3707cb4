"""What `prosody-sidecar check` says about a config: the file itself, and the files that it names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.config.credentials import OF_THE_SERVICE, SOURCES, newer_than_credentials, restart_for
from sidecar.config.loader import Examined, readable_for_the_service
from sidecar.config.models import Settings
from sidecar.config.named_files import examine_with_files
from sidecar.core.events import Limits, least_volume
from sidecar.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Report:
    """Lines as `file:line:column: path: text`; the settings are None if the config cannot be used."""

    name: str
    """The file, or `environment` if there is none."""
    problems: list[str]
    warnings: list[str]
    settings: Settings | None = None
    notes: tuple[str, ...] = ()
    """What the operator should know of a config that can be used."""


def check(file: Path, environ: Mapping[str, str]) -> Report:
    """Check everything that can be checked without the backend."""
    try:
        examined = examine_with_files(file, environ)
    except ConfigError as error:
        return Report(str(file), error.problems, [])
    notes = () if examined.settings is None else tuple(_volume(examined, examined.settings))
    problems = examined.problem_lines()
    passed = {"CREDENTIALS_DIRECTORY": str(OF_THE_SERVICE), **environ}
    unread = [f"{file}: warning: {restart_for(each)}" for each in newer_than_credentials(passed)]
    found = [*examined.warning_lines(), *unread, *_only_for_root(file)]
    return Report(examined.name, problems, found, None if problems else examined.settings, notes)


def _only_for_root(file: Path) -> Iterator[str]:
    """A warning where root can read the config of the service, and the service cannot."""
    if os.geteuid() != 0 or file.parent != SOURCES:
        return
    with suppress(OSError):
        found = file.stat()
        if not found.st_mode & 0o004 and not (found.st_mode & 0o040 and found.st_gid != 0) and found.st_uid == 0:
            mode = f"{found.st_mode & 0o777:04o}"
            yield f"{file}: warning: only root can read it (mode {mode}); {readable_for_the_service(file)}"


def _volume(examined: Examined, settings: Settings) -> Iterator[str]:
    """How large the file system of state_dir must be; a warning if it is smaller."""
    if settings.state_dir is None:
        return
    limits = Limits(max_events=settings.outbox.max_events, max_age=settings.outbox.max_age)
    least = least_volume(limits, sum(settings.cache.model_dump().values()))
    needs = (
        f"state_dir: the file system of {settings.state_dir} must have a total size of at least {_megabytes(least)}, "
        "so that it is not full before this outbox is"
    )
    there = next((each for each in (settings.state_dir, *settings.state_dir.parents) if os.path.exists(each)), None)
    size = least if there is None else shutil.disk_usage(there).total
    if size < least:
        text = (
            f"the file system of {settings.state_dir} has a total size of {_megabytes(size)}, but the outbox may need "
            f"{_megabytes(least)}: it would be full before the outbox is; use a larger one, or lower outbox.max_events"
        )
        examined.warn(("state_dir",), text)
    yield needs


def _megabytes(size: int) -> str:
    return f"{-(-size // 1_000_000):,} MB"
