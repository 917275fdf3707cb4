"""A config with the files that it names: whether they can be read and used, each with the place of its setting."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from sidecar.config.backend_target import tls_from
from sidecar.config.ca_file import check_engine_ca
from sidecar.config.credentials import (
    CREDENTIAL,
    content_of,
    credential,
    is_only_for_systemd,
    read_control_keys,
    read_secret,
    read_shared_key,
    read_signing_keys,
    read_token,
    read_tokens,
)
from sidecar.config.loader import Examined, Where, examine_file
from sidecar.config.models import Settings
from sidecar.config.server_tls import server_tls
from sidecar.errors import SidecarError

SECRET_FILE = ("backend", "secret_file")

ONLY_FOR_SYSTEMD = "was not examined: this user may not read the file, which systemd passes to the service"

SHORT = 16
"""Characters; a shorter secret or key gets a warning."""


def examine_with_files(file: Path, environ: Mapping[str, str]) -> Examined:
    """Check a config file and the files it names; raises ConfigError only if the config file cannot be read."""
    examined = examine_file(file, environ)
    if examined.settings is not None:
        _secret(examined, examined.settings, environ)
        _other_files(examined, examined.settings, environ)
        _orders(examined, examined.settings, environ)
    return examined


def _secret(examined: Examined, settings: Settings, environ: Mapping[str, str]) -> None:
    backend = settings.backend
    where = ("backend", "secret_env") if backend.secret_file is None else SECRET_FILE
    if is_only_for_systemd(CREDENTIAL, backend.secret_file, environ):
        examined.warn(where, ONLY_FOR_SYSTEMD)
        return
    try:
        secret = read_secret(backend, environ)
    except SidecarError as error:
        examined.complain(where, str(error))
        return
    if backend.secret_file is not None and credential(CREDENTIAL, environ) is None:
        _warn_about_file(examined, backend.secret_file)
    if secret is not None and len(secret) < SHORT:
        text = f"the secret has {len(secret)} characters and can be guessed; create a longer one: openssl rand -hex 32"
        examined.warn(where, text)


def _other_files(examined: Examined, settings: Settings, environ: Mapping[str, str]) -> None:
    """The tokens, the signing key, and the files for TLS."""
    secrets: tuple[tuple[Where, str, Path | None], ...] = (
        (("listen", "token_file"), "listen-token", settings.listen.token_file),
        (("admin", "token_file"), "admin-token", settings.admin.token_file),
        (("backend", "signing_key_file"), "signing-key", settings.backend.signing_key_file),
        (("control", "token_file"), "control-token", settings.control.token_file),
        (("shared", "key_file"), "shared-key", settings.shared.key_file),
        (("shared", "password_file"), "shared-password", settings.shared.password_file),
    )
    for where, name, file in secrets:
        if is_only_for_systemd(name, file, environ):
            examined.warn(where, ONLY_FOR_SYSTEMD)
            continue
        try:
            if name == "signing-key":
                read_signing_keys(file, environ)
            elif name in ("listen-token", "admin-token"):
                read_tokens(name, file, environ)
            elif name == "control-token":
                _warn_about_short_keys(examined, where, read_control_keys(file, environ))
            elif name == "shared-key" and settings.shared.url is not None:
                read_shared_key(file, environ)
            else:
                read_token(name, file, environ)
        except SidecarError as error:
            examined.complain(where, str(error))
        else:
            if file is not None:
                _warn_about_file(examined, file, where)
    for check in (
        partial(tls_from, settings.backend),
        partial(server_tls, settings.control),
        partial(check_engine_ca, settings.shared),
    ):
        try:
            check()
        except SidecarError as error:
            setting, _, text = str(error).partition(": ")
            examined.complain(tuple(setting.split(".")), text)


def _orders(examined: Examined, settings: Settings, environ: Mapping[str, str]) -> None:
    """Orders go to whoever connects as the module, so that needs a token. What cannot be read is a problem already."""
    with suppress(SidecarError):
        keys = read_control_keys(settings.control.token_file, environ)
        if keys and not read_tokens("listen-token", settings.listen.token_file, environ):
            text = (
                "orders need listen.token_file (or the systemd credential listen-token): without it, any program on "
                "this machine can connect as the module and receive the orders; set it, and muc_webhook_secret in "
                "Prosody to the same token"
            )
            examined.complain(("control", "token_file"), text)


def _warn_about_short_keys(examined: Examined, where: Where, keys: Sequence[tuple[str, bytes]]) -> None:
    shortest = min((len(text) for text, _ in keys), default=SHORT)
    if shortest < SHORT:
        text = f"a key has {shortest} characters and can be guessed; create a longer one: openssl rand -hex 32"
        examined.warn(where, text)


def _warn_about_file(examined: Examined, file: Path, where: Where = SECRET_FILE) -> None:
    """Warnings about a secret file; none if a credential is used instead of it and it cannot be read."""
    try:
        mode, content = stat.S_IMODE(file.stat().st_mode), content_of(file)
    except OSError:
        return
    if mode & 0o077:
        who = "every user of this machine" if mode & 0o007 else "its group"
        can = "change" if mode & 0o022 else "read"
        examined.warn(where, f"{who} can {can} {file} (mode {mode:04o}); run: chmod 600 {file}")
    if content.endswith((b"\n", b"\r")):
        text = (
            f"{file} ends with a line end. The sidecar ignores it, but a backend that reads such a file may use it as "
            "a part of the secret; write the file with printf %s"
        )
        examined.warn(where, text)
