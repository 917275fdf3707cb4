"""Settings -> where the backend is, what it trusts us by and what we trust it by. Reads the files they name."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.backend import Target
from sidecar.secret import read_secret
from sidecar.settings import Settings


def target_from(settings: Settings, environ: Mapping[str, str]) -> Target:
    """Raises StartError for a file that cannot be used."""
    backend = settings.backend
    return Target(
        backend.url,
        read_secret(backend, environ),
        backend.connect_timeout,
        backend.cache_control == "honour",
    )
