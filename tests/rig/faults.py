"""The ways in which a meeting service goes wrong, each as it shows on a real socket, and what the contract calls it."""

from __future__ import annotations

import functools
import ssl
from enum import Enum
from pathlib import Path

from aiohttp import web

from sidecar.core.model import Endpoint, Failure, Kind, Misconfigured, Outcome, Unavailable
from tests.rig.answers import Answer, Request, hang, raw, reset, slow, slow_body, trickle, truncated

TLS = Path(__file__).parent / "tls"
TRUSTED = TLS / "trusted.pem"
"""A certificate for 127.0.0.1; a client that reads it from SSL_CERT_FILE trusts it. Its key is public: tests only."""


class Fault(Enum):
    """What goes wrong. The text is the name in tables."""

    NONE = "none"
    REFUSED = "refused"
    RESET = "reset"
    TLS_UNTRUSTED = "TLS: not trusted"
    TLS_GARBLED = "TLS: no TLS"
    SLOW_HEAD = "slow head"
    SLOW_BODY = "slow body"
    TRICKLE = "a byte a second"
    HALF_BODY = "half a body"
    ERROR_500 = "500"
    ERROR_503 = "503"
    TOO_MANY = "429, Retry-After"
    UNAUTHORIZED = "401"
    FORBIDDEN = "403"
    HTML_404 = "404 HTML"
    REDIRECT = "302"
    GARBLED = "garbled JSON"
    NULL = "null"
    LIST = "a list"
    WRONG_TYPE = "wrong type"
    HTML_200 = "HTML 200"
    HUGE = "5 MB body"
    HANG = "hang"


SLOW_HEAD = 2.4
"""Seconds; less than a deadline, more than what counts as slow."""

SLOW_BODY = 8.0
RETRY_AFTER = 2

HTML = b"<!doctype html><html><body><h1>It works!</h1></body></html>"
_JSON, _HTML = "application/json", "text/html"

RESPONSES: dict[Fault, tuple[int, bytes, str]] = {
    Fault.ERROR_500: (500, b'{"error":"internal"}', _JSON),
    Fault.ERROR_503: (503, HTML, _HTML),
    Fault.TOO_MANY: (429, b'{"error":"slow down"}', _JSON),
    Fault.UNAUTHORIZED: (401, b'{"error":"who are you?"}', _JSON),
    Fault.FORBIDDEN: (403, HTML, _HTML),
    Fault.HTML_404: (404, HTML, _HTML),
    Fault.REDIRECT: (302, b'{"allowed":true}', _JSON),
    Fault.GARBLED: (200, b'{"allowed":true,"reason":nu', _JSON),
    Fault.NULL: (200, b"null", _JSON),
    Fault.LIST: (200, b'[{"allowed":true}]', _JSON),
    Fault.WRONG_TYPE: (200, b'{"allowed":"yes"}', _JSON),
    Fault.HTML_200: (200, HTML, _HTML),
    Fault.HUGE: (200, b'{"allowed":true,"x":"' + b"x" * 5_000_000 + b'"}', _JSON),
}
"""The faults that are a whole HTTP answer: status, body and content type."""

HEADERS: dict[Fault, dict[str, str]] = {
    Fault.TOO_MANY: {"Retry-After": str(RETRY_AFTER)},
    Fault.REDIRECT: {"Location": "/webhooks/jitsi/elsewhere"},
}


def response(fault: Fault, kind: Kind) -> tuple[int, bytes, str]:
    """Status, body and content type."""
    if fault is Fault.WRONG_TYPE and kind is not Kind.DECISION:
        return 200, b'"yes"', _JSON  # there is no `allowed` in settings; the whole is of the wrong type
    return RESPONSES[fault]


LOST: dict[Fault, Outcome] = {
    Fault.REFUSED: Unavailable("", Failure.UNSENT),
    Fault.RESET: Unavailable("", Failure.RESET),
    Fault.TLS_UNTRUSTED: Misconfigured(""),
    Fault.TLS_GARBLED: Unavailable("", Failure.UNSENT),
    Fault.SLOW_BODY: Unavailable("", Failure.TIMEOUT),
    Fault.TRICKLE: Unavailable("", Failure.TIMEOUT),
    Fault.HALF_BODY: Unavailable("", Failure.RESET),
    Fault.HANG: Unavailable("", Failure.TIMEOUT),
    Fault.HUGE: Unavailable("", Failure.USELESS),
}
"""The faults that are none, and the class the contract gives them."""


def spoilt(fault: Fault, right: Answer) -> Answer:
    """What becomes of the right answer."""
    match fault:
        case Fault.HANG:
            return hang
        case Fault.RESET:
            return reset()
        case Fault.SLOW_HEAD:
            return slow(SLOW_HEAD, right)
        case Fault.SLOW_BODY:
            return slow_body(SLOW_BODY, right)
        case Fault.TRICKLE:
            return trickle(1.0, right)
        case Fault.HALF_BODY:
            return truncated(right)
        case _ if fault in RESPONSES:
            return _instead(fault)
        case _:
            return right


def _instead(fault: Fault) -> Answer:
    async def answer(request: Request) -> web.StreamResponse:
        kind = Kind.DECISION if request.endpoint == Endpoint.VALIDATE_ACCESS else Kind.CONFIG
        status, body, content_type = response(fault, kind)
        return await raw(body, status, content_type, HEADERS.get(fault))(request)

    return answer


@functools.cache
def context_of(certificate: Path) -> ssl.SSLContext:
    """What a server with this certificate speaks; the file has its key too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def tls_of(fault: Fault) -> ssl.SSLContext | None:
    """What a backend that should speak TLS speaks: None is none."""
    match fault:
        case Fault.TLS_GARBLED:
            return None
        case Fault.TLS_UNTRUSTED:
            return context_of(TLS / "stranger.pem")
        case _:
            return context_of(TLS / "trusted.pem")
