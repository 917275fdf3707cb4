"""The webhook secret: from a systemd credential, a file, or an environment variable. It is kept out of every repr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sidecar.errors import StartError
from sidecar.settings import BackendSettings

CREDENTIAL = "webhook-secret"
"""The name systemd's `LoadCredential=` gives it; where it is there, it wins."""


def read_secret(settings: BackendSettings, environ: Mapping[str, str]) -> str | None:
    """The secret, without the line end that editors add; None when none is configured. Raises StartError."""
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder and (credential := Path(folder) / CREDENTIAL).exists():
        return _usable(_read(credential), f"the systemd credential {CREDENTIAL}")
    if settings.secret_file is not None:
        return _usable(_read(settings.secret_file), f"the webhook secret in {settings.secret_file}")
    if settings.secret_env is not None:
        if settings.secret_env not in environ:
            raise StartError(f"backend.secret_env: the environment has no variable {settings.secret_env}; set it")
        return _usable(environ[settings.secret_env], f"the webhook secret in ${settings.secret_env}")
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise StartError(
            f"the webhook secret cannot be read from {file}: {error.strerror}; check path, owner and mode"
        ) from None
    except UnicodeDecodeError:
        raise StartError(f"the webhook secret in {file} is not text; write the secret alone into it") from None


def _usable(text: str, where: str) -> str:
    secret = text.strip("\r\n")
    if not secret:
        raise StartError(f"{where} is empty; write the secret alone into it")
    if not secret.isascii() or not secret.isprintable():
        raise StartError(f"{where} holds characters an HTTP header cannot carry; use printable ASCII on one line")
    if secret != secret.strip():
        raise StartError(f"{where} begins or ends with a space, which HTTP would leave out; remove it")
    return secret
