"""The webhook secret and other secrets, from a systemd credential, a file, or the environment. No repr shows them."""

from __future__ import annotations

import base64
import errno
import stat
from collections.abc import Mapping
from pathlib import Path

from sidecar.config.models import BackendSettings
from sidecar.errors import StartError

CREDENTIAL = "webhook-secret"
"""The name in systemd's `LoadCredential=`; if this credential exists, it has priority."""


FILE_LIMIT = 1024 * 1024
"""Bytes; a bundle of all public CAs is a quarter of it."""


MOST_KEYS = 2
"""Signing keys at the same time: the new one, and the old one until the backend knows the new one."""


def read_secret(settings: BackendSettings, environ: Mapping[str, str]) -> str | None:
    """The secret, without the line end that editors add; None if none is configured. Raises StartError."""
    passed = credential(CREDENTIAL, environ)
    if passed is not None:
        return _usable(_read(passed), f"the systemd credential {CREDENTIAL}")
    if settings.secret_file is not None:
        return _usable(_read(settings.secret_file), f"the webhook secret in {settings.secret_file}")
    if settings.secret_env is not None:
        if settings.secret_env not in environ:
            raise StartError(f"backend.secret_env: the environment variable {settings.secret_env} is not set; set it")
        return _usable(environ[settings.secret_env], f"the webhook secret in ${settings.secret_env}")
    return None


def read_token(name: str, file: Path | None, environ: Mapping[str, str]) -> str | None:
    """Another secret: `listen-token` or `admin-token`, from a credential or file. Raises StartError."""
    passed = credential(name, environ)
    if passed is not None:
        return _usable(_read(passed, name), f"the systemd credential {name}")
    return None if file is None else _usable(_read(file, name), f"the {name} in {file}")


def read_signing_keys(file: Path | None, environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """The keys for signatures, one on each line, from the credential `signing-key` or a file. Raises StartError."""
    passed = credential("signing-key", environ)
    if passed is None and file is None:
        return ()
    where = "the systemd credential signing-key" if passed is not None else f"the signing-key in {file}"
    lines = _read(passed or file or Path(), "signing-key").strip("\r\n").splitlines()
    if len(lines) > MOST_KEYS:
        raise StartError(
            f"{where} has {len(lines)} lines; write one key, or the new key and the old key, one on each line"
        )
    keys = tuple(_signing_key(_usable(line, where)) for line in lines or [""])
    if len(set(keys)) < len(keys):
        raise StartError(f"{where} has the same key twice; write each key once")
    return keys


def _signing_key(text: str) -> bytes:
    """The bytes of a Standard Webhooks key: base64 after `whsec_`, any other text as it is. Raises StartError."""
    if not text.startswith("whsec_"):
        return text.encode()
    try:
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise StartError("the signing-key begins with whsec_, but the rest is not base64; copy the complete key")
    return key


def credential(name: str, environ: Mapping[str, str]) -> Path | None:
    """The file of a systemd credential, if there is one. Raises StartError."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    try:
        return Path(folder) / name if folder and (Path(folder) / name).exists() else None
    except OSError as error:
        raise StartError(f"$CREDENTIALS_DIRECTORY: {folder} cannot be read: {error.strerror}; check its mode") from None


def content_of(file: Path) -> bytes:
    """The bytes of a file. Raises OSError, also for a device or pipe: reading it may have no end."""
    if not stat.S_ISREG(file.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    with file.open("rb") as opened:
        content = opened.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise OSError(errno.EFBIG, f"it is larger than {FILE_LIMIT // 1024} KiB")
    return content


def _read(file: Path, what: str = "webhook secret") -> str:
    try:
        return content_of(file).decode("utf-8")
    except OSError as error:
        raise StartError(
            f"the {what} cannot be read from {file}: {error.strerror}; check its path, owner and mode"
        ) from None
    except UnicodeDecodeError:
        raise StartError(f"the {what} in {file} is not text; write only the secret into it") from None


def _usable(text: str, where: str) -> str:
    secret = text.strip("\r\n")
    if not secret:
        raise StartError(f"{where} is empty; write only the secret into it")
    if not secret.isascii() or not secret.isprintable():
        raise StartError(
            f"{where} holds characters that are not allowed in an HTTP header; use printable ASCII on one line"
        )
    if secret != secret.strip():
        raise StartError(f"{where} begins or ends with a space, which HTTP removes; remove it")
    return secret
