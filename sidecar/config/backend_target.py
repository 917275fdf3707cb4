"""Settings -> address, secret and TLS of the backend. Reads the files that the settings name."""

from __future__ import annotations

import functools
import hashlib
import ssl
from collections.abc import Mapping
from pathlib import Path

from sidecar.backend.client import Target
from sidecar.config.ca_file import trusting
from sidecar.config.credentials import content_of, read_secret, read_signing_keys
from sidecar.config.models import BackendSettings, Settings
from sidecar.errors import StartError

TLS_FILES = ("ca_file", "client_certificate", "client_key")


def target_from(settings: Settings, environ: Mapping[str, str]) -> Target:
    """Raises StartError for a file that cannot be used."""
    backend = settings.backend
    tls, files = tls_from(backend)
    return Target(
        backend.url,
        read_secret(backend, environ),
        backend.connect_timeout,
        backend.cache_control == "honour",
        tls,
        files,
        read_signing_keys(backend.signing_key_file, environ),
        backend.forward_token,
    )


def tls_from(backend: BackendSettings) -> tuple[ssl.SSLContext | None, str]:
    """The TLS context from the files that the settings name, and a digest of these files. Raises StartError."""
    files = _digest(backend)
    if not files:
        return None, ""
    return _context(backend.ca_file, backend.client_certificate, backend.client_key, files), files


def _digest(backend: BackendSettings) -> str:
    """A digest of the TLS files; empty if there are none."""
    named = {
        "ca_file": backend.ca_file,
        "client_certificate": backend.client_certificate,
        "client_key": backend.client_key,
    }
    digest = hashlib.sha256()
    for name, file in named.items():
        if file is not None:
            try:
                digest.update(name.encode() + hashlib.sha256(content_of(file)).digest())
            except OSError as error:
                raise StartError(
                    f"backend.{name}: {file} cannot be read: {error.strerror}; check its path and mode"
                ) from None
    return digest.hexdigest() if any(named.values()) else ""


@functools.lru_cache(maxsize=2)
def _context(ca: Path | None, certificate: Path | None, key: Path | None, files: str) -> ssl.SSLContext:
    """The same context for the same files: a reload that changes nothing keeps the open connections."""
    context = trusting("backend.ca_file", ca)
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password=lambda: "")  # without it, OpenSSL asks on the terminal
        except OSError as error:
            reason = getattr(error, "reason", None) or error.strerror
            raise StartError(
                f"backend.client_certificate: {certificate} and {key} cannot be used together: {reason}; "
                "both must be PEM files, and the key must belong to the certificate and have no passphrase"
            ) from None
    return context
