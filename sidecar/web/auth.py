"""Who may ask: those who send the token of the listener, if it has one."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.web.responses import Problem


def check_token(request: web.BaseRequest, token: str) -> None:
    """For Prosody, which sends it as X-Webhook-Secret. Raises Problem for those who do not have it."""
    if not _is_same(request.headers.get("X-Webhook-Secret", ""), token):
        raise Problem(401, "X-Webhook-Secret is not the sidecar's token; set muc_webhook_secret in Prosody to it")


def require_token(token: Callable[[], str | None]) -> Middleware:
    """For operators, who send it as a bearer's, or as the password of a browser. /livez needs none."""

    @web.middleware
    async def let_in(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = token()
        if wanted is None or request.path == "/livez":
            return await handler(request)
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                given = base64.b64decode(given).decode().partition(":")[2]
            except ValueError:
                given = ""
        if not _is_same(given, wanted):
            challenge = {"WWW-Authenticate": 'Basic realm="prosody-sidecar", charset="UTF-8"'}
            detail = "send the token of admin.token_file as `Authorization: Bearer ...`, or as a password"
            return web.json_response({"status": 401, "detail": detail}, status=401, headers=challenge)
        return await handler(request)

    return let_in


def _is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
