"""Whom a connection of ours trusts: the CA in a file that a setting names, or those of the system."""

from __future__ import annotations

import ssl
from pathlib import Path

from sidecar.config.credentials import content_of
from sidecar.config.models import Shared
from sidecar.errors import StartError


def trusting(setting: str, ca: Path | None) -> ssl.SSLContext:
    """A context for connections to servers. Raises StartError, which begins with the name of the setting."""
    try:
        if ca is not None:
            content_of(ca)  # first: OpenSSL would wait for a pipe
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError:
        raise StartError(f"{setting}: {ca} contains no certificate; it must be a PEM file") from None
    except OSError as error:
        raise StartError(f"{setting}: {ca} cannot be read: {error.strerror}; check its path and mode") from None


def check_engine_ca(shared: Shared) -> None:
    """Raises StartError for a shared.ca_file that cannot be used. The client reads it for each connection."""
    if shared.ca_file is not None:
        trusting("shared.ca_file", shared.ca_file)
