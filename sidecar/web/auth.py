"""The tokens: if a listener has some, each request must send one of them."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.web.control import PATH
from sidecar.web.responses import Problem


def sent_token(request: web.BaseRequest) -> str:
    """The token that Prosody sends; empty without one."""
    return request.headers.get("X-Webhook-Secret", "")


def check_token(request: web.BaseRequest, tokens: Sequence[str]) -> None:
    """Raises Problem if Prosody has to send a token, and sends none of these."""
    if tokens and not is_one_of(sent_token(request), tokens):
        raise Problem(401, "X-Webhook-Secret is not the sidecar's token; set muc_webhook_secret in Prosody to it")


def require_token(tokens: Callable[[], Sequence[str]]) -> Middleware:
    """For operators, who send the token as a bearer token, or as the password in a browser. /livez needs none. Without
    a token, everybody may read what is no order, and nobody may change anything."""

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = tokens()
        if not wanted and (request.method not in ("GET", "HEAD") or request.path.startswith(PATH)):
            detail = "this needs the admin socket (prosody-sidecar does it), or a token: see admin.token_file"
            return web.json_response({"status": 403, "detail": detail}, status=403)
        if not wanted or request.path == "/livez" or is_one_of(_given(request), wanted):
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


def is_one_of(given: str, wanted: Sequence[str]) -> bool:
    """Compares with all of them, in a time that says nothing about them."""
    sent = given.encode("utf-8", "replace")
    return any([hmac.compare_digest(sent, each.encode()) for each in wanted])  # noqa: C419 - with all of them
