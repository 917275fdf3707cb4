"""One request of a command to the running daemon: one JSON document.

What only reads goes to the admin listener. What changes something, and who is in a room, goes to the admin socket; or
to the listener, if it has a token.
"""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sidecar.config.models import Admin
from sidecar.errors import SidecarError, Unreachable

TIMEOUT = 15.0
"""Seconds; an order is answered within 5."""

READ_WITHIN = 5.0
"""Seconds for what only reads. systemd accepts a connection also while the service does not start."""

_SEE = "check whether it runs: systemctl status prosody-sidecar"


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over the admin socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            opened.settimeout(TIMEOUT)
            opened.connect(str(self._path))
        except BaseException:
            opened.close()
            raise
        self.sock = opened


def ask(
    admin: Admin,
    method: str,
    path: str,
    *,
    sockets: Sequence[Path] = (),
    query: dict[str, str] | None = None,
    body: Any = None,
    token: str | None = None,
) -> Any:
    """Send one request to the running daemon; raises Unreachable, or SidecarError with the daemon's answer. `sockets`:
    where the admin socket may be; none: the request only reads."""
    if query:
        path = f"{path}?{urllib.parse.urlencode(query)}"
    connection = _connected(admin, sockets, token)
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        response = connection.getresponse()
        document = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"no sidecar answers on {admin.host} port {admin.port} ({error}); {_SEE}") from None
    finally:
        connection.close()
    if response.status >= 400 and path != "/readyz":
        raise SidecarError(f"the sidecar answered {response.status}: {document.get('detail', document)}")
    return document


def _connected(admin: Admin, sockets: Sequence[Path], token: str | None) -> http.client.HTTPConnection:
    """A connection on which this request may be sent."""
    refused: list[str] = []
    forbidden: Path | None = None
    for path in sockets:
        local = _LocalConnection(path)
        try:
            local.connect()
        except PermissionError:
            forbidden = path
        except OSError as error:
            refused.append(f"{path}: {error.strerror or error}")
        else:
            return local
    if not sockets or token is not None:
        return http.client.HTTPConnection(admin.host, admin.port, timeout=TIMEOUT if sockets else READ_WITHIN)
    if forbidden is not None:
        raise SidecarError(
            f"this user may not use the admin socket {forbidden}; use sudo, or add the user to the group "
            "prosody-sidecar-admin"
        )
    raise Unreachable(f"no sidecar answers on its admin socket ({'; '.join(refused)}); {_SEE}")
