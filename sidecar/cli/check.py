"""What `prosody-sidecar check` says about a config: the file itself, and the files that it names."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.config.backend_target import tls_from
from sidecar.config.credentials import CREDENTIAL, read_secret, read_token, signing_key
from sidecar.config.loader import Examined, Where, examine_file
from sidecar.config.models import Settings
from sidecar.core.events import Limits, least_volume
from sidecar.errors import ConfigError, SidecarError

SECRET_FILE = ("backend", "secret_file")


@dataclass(frozen=True, slots=True)
class Report:
    """Lines as `file:line:column: path: text`; the settings are None if the config cannot be used."""

    problems: list[str]
    warnings: list[str]
    settings: Settings | None = None
    notes: tuple[str, ...] = ()
    """What the operator should know of a config that can be used."""


def check(file: Path, environ: Mapping[str, str]) -> Report:
    """Check everything that can be checked without the backend."""
    try:
        examined = examine_file(file)
    except ConfigError as error:
        return Report(error.problems, [])
    if examined.settings is not None:
        _secret(examined, examined.settings, environ)
        _other_files(examined, examined.settings, environ)
    notes = () if examined.settings is None else tuple(_volume(examined, examined.settings))
    problems = examined.problem_lines()
    return Report(problems, examined.warning_lines(), None if problems else examined.settings, notes)


def _volume(examined: Examined, settings: Settings) -> Iterator[str]:
    """How large the file system of state_dir must be; a warning if it is smaller."""
    if settings.state_dir is None:
        return
    limits = Limits(max_events=settings.outbox.max_events, max_age=settings.outbox.max_age)
    least = least_volume(limits, sum(settings.cache.model_dump().values()))
    needs = f"state_dir: {settings.state_dir} needs a file system of at least {_megabytes(least)} for this outbox"
    there = next((each for each in (settings.state_dir, *settings.state_dir.parents) if os.path.exists(each)), None)
    size = least if there is None else shutil.disk_usage(there).total
    if size < least:
        text = (
            f"the file system of {settings.state_dir} has {_megabytes(size)}, but the outbox may need "
            f"{_megabytes(least)}: it would be full before the outbox is; use a larger one, or lower outbox.max_events"
        )
        examined.warn(("state_dir",), text)
    yield needs


def _megabytes(size: int) -> str:
    return f"{-(-size // 1_000_000):,} MB"


def _secret(examined: Examined, settings: Settings, environ: Mapping[str, str]) -> None:
    backend = settings.backend
    where = ("backend", "secret_env") if backend.secret_file is None else SECRET_FILE
    try:
        secret = read_secret(backend, environ)
    except SidecarError as error:
        examined.complain(where, str(error))
        return
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if backend.secret_file is not None and not (folder and (Path(folder) / CREDENTIAL).exists()):
        _warn_about_file(examined, backend.secret_file)
    if secret is not None and len(secret) < 16:
        text = f"the secret has {len(secret)} characters and can be guessed; create a longer one: openssl rand -hex 32"
        examined.warn(where, text)


def _other_files(examined: Examined, settings: Settings, environ: Mapping[str, str]) -> None:
    """The tokens, the signing key, and the files for TLS."""
    secrets: tuple[tuple[Where, str, Path | None], ...] = (
        (("listen", "token_file"), "listen-token", settings.listen.token_file),
        (("admin", "token_file"), "admin-token", settings.admin.token_file),
        (("backend", "signing_key_file"), "signing-key", settings.backend.signing_key_file),
    )
    for where, name, file in secrets:
        try:
            text = read_token(name, file, environ)
            if name == "signing-key":
                signing_key(text)
        except SidecarError as error:
            examined.complain(where, str(error))
        else:
            if file is not None and file.exists():
                _warn_about_file(examined, file, where)
    try:
        tls_from(settings.backend)
    except SidecarError as error:
        setting, _, text = str(error).partition(": ")
        examined.complain(tuple(setting.split(".")), text)


def _warn_about_file(examined: Examined, file: Path, where: Where = SECRET_FILE) -> None:
    """Warnings about a secret file that can be used."""
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & 0o077:
        who = "every user of this machine" if mode & 0o007 else "its group"
        can = "change" if mode & 0o022 else "read"
        examined.warn(where, f"{who} can {can} {file} (mode {mode:04o}); run: chmod 600 {file}")
    if file.read_bytes().endswith((b"\n", b"\r")):
        text = (
            f"{file} ends with a line end. The sidecar ignores it, but a backend that reads such a file may use it as "
            "a part of the secret; write the file with printf %s"
        )
        examined.warn(where, text)
