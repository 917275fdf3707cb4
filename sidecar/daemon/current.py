"""The config that is in force: what the file says, and what the files that it names contain."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import compress
from operator import attrgetter, ne
from pathlib import Path

from sidecar.backend.client import Target
from sidecar.config.backend_target import target_from
from sidecar.config.ca_file import check_engine_ca
from sidecar.config.credentials import (
    how_to_correct_secret,
    read_control_keys,
    read_shared_key,
    read_token,
    read_tokens,
)
from sidecar.config.models import Settings
from sidecar.config.server_tls import server_tls
from sidecar.errors import StartError
from sidecar.web.keys import ControlKey


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the settings name without holding it."""

    target: Target
    """Where the backend is, with its secret, its key and its TLS files."""
    listen_tokens: tuple[str, ...] = field(default=(), repr=False)
    """One of these Prosody has to send; empty: nothing."""
    admin_tokens: tuple[str, ...] = field(default=(), repr=False)
    """One of these operators have to send; empty: nothing."""
    control_keys: tuple[ControlKey, ...] = ()
    """What those who give orders have to send or to sign with; without a key, the control listener is off."""
    control_tls: ssl.SSLContext | None = field(default=None, repr=False, compare=False)
    shared_key: bytes = field(default=b"", repr=False)
    """Signs what several sidecars share."""
    shared_password: str | None = field(default=None, repr=False)
    secret_advice: str = ""
    """What an operator does about a webhook secret that the backend does not accept."""


def read_secrets(settings: Settings, environ: Mapping[str, str]) -> Secrets:
    """From credentials, files and the environment. Raises StartError for one that cannot be read."""
    admin_tokens = read_tokens("admin-token", settings.admin.token_file, environ)
    target = target_from(settings, environ)
    listen_tokens = read_tokens("listen-token", settings.listen.token_file, environ)
    keys = tuple(ControlKey(*key) for key in read_control_keys(settings.control.token_file, environ))
    advice = how_to_correct_secret(settings.backend, environ)
    shared_key, shared_password = b"", None
    if settings.shared.url is not None:
        try:
            shared_key = read_shared_key(settings.shared.key_file, environ)
        except StartError as error:
            raise StartError(f"shared.key_file: {error}") from None
        shared_password = read_token("shared-password", settings.shared.password_file, environ)
        check_engine_ca(settings.shared)
    tls = server_tls(settings.control)
    return Secrets(target, listen_tokens, admin_tokens, keys, tls, shared_key, shared_password, advice)


RESTART_ONLY = (
    *("listen.host", "listen.port", "listen.prefix", "listen.allow_remote"),
    *("admin.host", "admin.port", "admin.socket", "admin.allow_remote"),
    *("control.host", "control.port", "control.allow_remote", "control.certificate", "control.key", "control.ttl"),
    *("shared", "state_dir", "cache", "outbox"),
)
"""Settings and sections that a reload leaves as they were. All others change at once, such as the tokens."""


@dataclass(slots=True)
class Current:
    """What the daemon runs with; a reload replaces the first three."""

    settings: Settings
    admin_tokens: tuple[str, ...] = field(repr=False)
    read_at: float
    """Unix seconds, as `started_at`."""
    started_at: float
    started_with: Settings
    """What is in force of the sections in RESTART_ONLY, however often the file is read again."""
    source: Path | None
    """The file that a reload reads again; None: the settings are built in."""
    control_keys: tuple[ControlKey, ...] = ()
    """A reload replaces these too."""
    of_the_engine: tuple[bytes, str | None] = field(default=(b"", None), repr=False)
    """The key and the password with which the shared memory was opened; only a restart opens it again."""

    def changed_secrets(self, settings: Settings, secrets: Secrets) -> tuple[str, ...]:
        """The settings of the shared memory that are the same, but name a file with something else than at the
        start."""
        if settings.shared != self.started_with.shared:
            return ()
        differ = map(ne, (secrets.shared_key, secrets.shared_password), self.of_the_engine)
        return tuple(compress(("shared.key_file", "shared.password_file"), differ))

    def needs_restart(self) -> tuple[str, ...]:
        """The settings and sections that are other than at the start."""
        value_of = (attrgetter(name) for name in RESTART_ONLY)
        changed = [value(self.started_with) != value(self.settings) for value in value_of]
        return tuple(compress(RESTART_ONLY, changed))
