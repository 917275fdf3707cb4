"""The webhook secret and other secrets, from a systemd credential, a file, or the environment. No repr shows them."""

from __future__ import annotations

import base64
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from sidecar.config.models import BackendSettings
from sidecar.errors import StartError

CREDENTIAL = "webhook-secret"
"""The name in systemd's `LoadCredential=`; if this credential exists, it has priority."""

CREDENTIALS = (
    CREDENTIAL,
    "signing-key",
    "listen-token",
    "admin-token",
    "control-token",
    "shared-key",
    "shared-password",
)
"""All names that are looked for."""

SOURCES = Path("/etc/prosody-sidecar")
"""The folder from which the unit passes credentials, each under its name."""

OF_THE_SERVICE = Path("/run/credentials/prosody-sidecar.service")
"""What systemd has passed to the running service, for commands of root; other users may not look there."""

FILE_LIMIT = 1024 * 1024
"""Bytes; a bundle of all public CAs is a quarter of it."""


MOST_KEYS = 2
"""Keys or tokens in one file: the new one, and the old one until the other side uses the new one."""


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


def how_to_correct_secret(settings: BackendSettings, environ: Mapping[str, str]) -> str:
    """What an operator does about a secret that the backend does not accept."""
    if credential(CREDENTIAL, environ) is not None:
        return (
            f"check the webhook secret in {SOURCES / CREDENTIAL}, or what LoadCredential= names; {TEST_FIRST}, then "
            f"{RESTART} (a reload does not read a credential again)"
        )
    if settings.secret_file is not None:
        return f"check the webhook secret in {settings.secret_file}, then reload"
    if settings.secret_env is not None:
        return f"check the webhook secret in the environment variable {settings.secret_env}, then restart"
    return "no webhook secret is sent; if the backend requires one, set backend.secret_file, then reload"


def newer_than_credentials(environ: Mapping[str, str], sources: Path | None = None) -> list[Path]:
    """The files of credentials that differ from what systemd passed at the start. A reload does not read them: only a
    restart does. Where they may not be read, the later of the two times counts."""
    changed = []
    for name in CREDENTIALS:
        source = (sources or SOURCES) / name
        try:
            passed = credential(name, environ)
        except StartError:
            return []
        if passed is not None and passed != source and _differs(passed, source):
            changed.append(source)
    return changed


def as_the_service(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with what systemd has passed to the running service, for a command of root, which asks the
    backend with the same secret."""
    if "CREDENTIALS_DIRECTORY" in environ or os.geteuid() != 0 or not OF_THE_SERVICE.exists():
        return environ
    return {**environ, "CREDENTIALS_DIRECTORY": str(OF_THE_SERVICE)}


def is_only_for_systemd(name: str, file: Path | None, environ: Mapping[str, str]) -> bool:
    """Whether this process may not read a file that systemd passes to the service. systemd 257 does so without passing
    it to `check` at a reload too."""
    passed = "CREDENTIALS_DIRECTORY" in environ
    return not passed and file == SOURCES / name and file.exists() and not os.access(file, os.R_OK)


def has_changed(file: Path) -> str:
    """What an operator reads about such a file."""
    return (
        f"{file} has changed since the service was started, and a reload does not read it, since systemd passes it as "
        "a credential"
    )


def restart_for(file: Path) -> str:
    """The same, and what to do."""
    test = f"{TEST_FIRST}, then " if file.name == CREDENTIAL else ""
    return f"{has_changed(file)}; {test}{RESTART}"


RESTART = "run: systemctl restart prosody-sidecar"
TEST_FIRST = "first run: sudo prosody-sidecar doctor, which tests the new secret"


def _differs(passed: Path, source: Path) -> bool:
    try:
        try:
            return content_of(passed) != content_of(source)
        except PermissionError:
            return source.stat().st_mtime > passed.stat().st_mtime
    except OSError:
        return False  # LoadCredential= names another file, or this user may not even look


def read_token(name: str, file: Path | None, environ: Mapping[str, str]) -> str | None:
    """Another secret, from a credential or file. Raises StartError."""
    passed = credential(name, environ)
    if passed is not None:
        return _usable(_read(passed, name), f"the systemd credential {name}")
    return None if file is None else _usable(_read(file, name), f"the {name} in {file}")


def read_tokens(name: str, file: Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The tokens of a listener, one on each line, from the credential `listen-token` or `admin-token`, or from a file:
    each of them counts. Empty: it needs none. Raises StartError."""
    return _read_keys(name, file, environ)


def read_signing_keys(file: Path | None, environ: Mapping[str, str]) -> tuple[bytes, ...]:
    """The keys for signatures, one on each line, from the credential `signing-key` or a file. Raises StartError."""
    return tuple(_signing_key(text) for text in _read_keys("signing-key", file, environ))


def read_control_keys(file: Path | None, environ: Mapping[str, str]) -> tuple[tuple[str, bytes], ...]:
    """The keys for orders, one on each line, from the credential `control-token` or a file: each as it is sent, and as
    bytes to sign with. Raises StartError."""
    return tuple((text, _signing_key(text)) for text in _read_keys("control-token", file, environ))


def read_shared_key(file: Path | None, environ: Mapping[str, str]) -> bytes:
    """The key that signs what several sidecars share, from the credential `shared-key` or a file. Raises StartError."""
    key = read_token("shared-key", file, environ)
    if key is None:
        raise StartError("is missing, because shared.url is set; create one for all sidecars: openssl rand -hex 32")
    if len(key) < SHORTEST_KEY:
        raise StartError(f"the shared-key has {len(key)} characters and can be guessed: openssl rand -hex 32")
    return key.encode()


SHORTEST_KEY = 16
"""Characters of a key that is used for signatures."""


def _read_keys(name: str, file: Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    passed = credential(name, environ)
    if passed is None and file is None:
        return ()
    where = f"the systemd credential {name}" if passed is not None else f"the {name} in {file}"
    lines = _read(passed or file or Path(), name).strip("\r\n").splitlines()
    if len(lines) > MOST_KEYS:
        raise StartError(f"{where} has {len(lines)} lines; write one, or the new one and the old one, each on a line")
    keys = tuple(_usable(line, where) for line in lines or [""])
    if len(set(keys)) < len(keys):
        raise StartError(f"{where} has the same line twice; write each once")
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
        raise StartError("the key begins with whsec_, but the rest is not base64; copy the complete key")
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
