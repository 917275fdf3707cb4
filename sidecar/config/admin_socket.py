"""Where the admin socket is: the daemon listens there, and the command connects there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sidecar.config.models import Settings

SYSTEM = Path("/run/prosody-sidecar/admin.sock")
"""The socket of systemd (prosody-sidecar-control.socket)."""


def admin_socket(settings: Settings, environ: Mapping[str, str]) -> Path | None:
    """Where a daemon that gets no socket from systemd makes its own: as configured, in the state folder, or in a folder
    of this user. None: nowhere, since the port of the admin listener is not known, which would give it a name."""
    if settings.admin.socket is not None:
        return settings.admin.socket
    if settings.state_dir is not None:
        return settings.state_dir / "admin.sock"
    if settings.admin.port == 0:
        return None
    folder = Path(environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"prosody-sidecar-{os.getuid()}"
    return folder / f"admin-{settings.admin.port}.sock"
