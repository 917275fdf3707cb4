"""The tokens: if a listener has one, each request must send it."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.web.control import PATH
from sidecar.web.responses import Problem


def check_token(request: web.BaseRequest, token: str) -> None:
    """For Prosody, which sends the token as X-Webhook-Secret. Raises Problem if it is missing or wrong."""
    if not _is_same(request.headers.get("X-Webhook-Secret", ""), token):
        raise Problem(401, "X-Webhook-Secret is not the sidecar's token; set muc_webhook_secret in Prosody to it")


def require_token(token: Callable[[], str | None]) -> Middleware:
    """For operators, who send the token as a bearer token, or as the password in a browser. /livez needs none. Without
    a token, everybody may read what is no order, and nobody may change anything."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = token()
        if wanted is None and (request.method not in ("GET", "HEAD") or request.path.startswith(PATH)):
            detail = "this needs the admin socket (prosody-sidecar does it), or a token: see admin.token_file"
            return web.json_response({"status": 403, "detail": detail}, status=403)
        if wanted is None or request.path == "/livez" or _is_same(_given(request), wanted):
            return await handler(request)
        challenge = {"WWW-Authenticate": 'Basic realm="prosody-sidecar", charset="UTF-8"'}
        detail = "send the token of admin.token_file as `Authorization: Bearer ...`, or as a password"
        return web.json_response({"status": 401, "detail": detail}, status=401, headers=challenge)

    return authenticate


def _given(request: web.Request) -> str:
    """The token that a request sends; empty without a readable one."""
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return given
    try:
        return base64.b64decode(given).decode().partition(":")[2]
    except ValueError:
        return ""


def _is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
