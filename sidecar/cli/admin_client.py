"""One request of a command to the admin listener: one JSON document."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from typing import Any

from sidecar.config.models import Admin
from sidecar.errors import SidecarError, Unreachable


def ask(
    admin: Admin,
    method: str,
    path: str,
    *,
    query: dict[str, str] | None = None,
    body: Any = None,
    token: str | None = None,
) -> Any:
    """Send one request to the running daemon; raises Unreachable, or SidecarError with the daemon's answer."""
    if query:
        path = f"{path}?{urllib.parse.urlencode(query)}"
    content = None if body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection(admin.host, admin.port, timeout=10)
    try:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        connection.request(method, path, content, headers)
        response = connection.getresponse()
        document = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(
            f"no sidecar answers on {admin.host} port {admin.port} ({error}); check whether it runs: "
            "systemctl status prosody-sidecar"
        ) from None
    finally:
        connection.close()
    if response.status >= 400 and path != "/readyz":
        raise SidecarError(f"the sidecar answered {response.status}: {document.get('detail', document)}")
    return document
