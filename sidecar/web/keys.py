"""Who may give orders: the key as a bearer token, or a signature of Standard Webhooks that was made with it.

A request without either gets a slow 401: each waits a second, and only so many wait. With a signature, `webhook-id` is
the idempotency key, so that a request which somebody has recorded and sends again is a repeat.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aiohttp import web

from sidecar.clock import Clock
from sidecar.facts import Emit, Intruder
from sidecar.web.control import Sender
from sidecar.web.requests import read_body
from sidecar.web.responses import Problem

WINDOW = 300.0
"""Seconds by which the time of a signature may differ from now."""

DELAY = 1.0
"""Seconds until a wrong key is refused."""

MOST_DELAYED = 32
"""Requests that wait for their refusal; one more is turned away at once."""

KEY_LIMIT = 200
"""Characters of an idempotency key."""


class ControlKey(NamedTuple):
    """One key: as it is sent, and as bytes to sign with."""

    token: str
    signing: bytes

    def __repr__(self) -> str:
        """Without the key."""
        return "ControlKey()"


class KeyHolders:
    """Knows who sends a request to the control listener."""

    def __init__(self, keys: Callable[[], Sequence[ControlKey]], clock: Clock, emit: Emit) -> None:
        """`keys` are read at each request: the new one, and the old one while both are in use."""
        self._keys = keys
        self._clock = clock
        self._emit = emit
        self._delayed = 0

    async def identify(self, request: web.Request) -> Sender:
        """The sender. Raises Problem after a while if there is no valid token or signature."""
        keys, body = self._keys(), None
        if "webhook-signature" in request.headers:
            body = await read_body(request) if request.can_read_body else b""
            number = _signer(request, body, keys, self._clock.wall())
            key = request.headers.get("webhook-id")
        else:
            kind, _, given = request.headers.get("Authorization", "").partition(" ")
            number = _number([_is_same(given, each.token) for each in keys] if kind.lower() == "bearer" else [])
            key = request.headers.get("Idempotency-Key")
        if number is None:
            await self._refuse(request)
        if key is not None and not (0 < len(key) <= KEY_LIMIT and key.isascii() and key.isprintable()):
            raise Problem(
                400, f"Idempotency-Key must have 1 to {KEY_LIMIT} characters of ASCII", field="Idempotency-Key"
            )
        return Sender(f"key {number} from {request.remote}", key, body)

    async def _refuse(self, request: web.Request) -> None:
        if self._delayed >= MOST_DELAYED:
            raise Problem(429, "too many requests have no valid key", Retry_After="1", Connection="close")
        self._delayed += 1
        try:
            self._emit(Intruder(request.remote or ""))
            await asyncio.sleep(DELAY)
        finally:
            self._delayed -= 1
        detail = (
            "send the key of control.token_file as `Authorization: Bearer ...`, or a signature of Standard Webhooks"
        )
        raise Problem(401, f"{detail} that is not older than {WINDOW / 60:.0f} minutes", WWW_Authenticate="Bearer")


def _signer(request: web.Request, body: bytes, keys: Sequence[ControlKey], now: float) -> int | None:
    """Which key has signed the body, counted from 1; None: none of them, or too long ago."""
    headers = request.headers
    message, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message or not (at.isascii() and at.isdigit() and len(at) < 12) or abs(now - int(at)) > WINDOW:
        return None
    signed = f"{message}.{at}.".encode("utf-8", "surrogateescape") + body
    given = headers["webhook-signature"].split(" ")[:10]
    return _number([_has_signed(each.signing, signed, given) for each in keys])


def _has_signed(key: bytes, signed: bytes, given: Sequence[str]) -> bool:
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return any(_is_same(each, wanted) for each in given)


def _number(fits: Sequence[bool]) -> int | None:
    return fits.index(True) + 1 if any(fits) else None


def _is_same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
