"""Path, head and body of a request of Prosody, each with its limits."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import hdrs, web

from sidecar.core.model import Endpoint
from sidecar.core.wire import BODY_LIMIT
from sidecar.web.responses import JSON, Problem

BODY_SECONDS = 5.0
"""Seconds in which the body of a request must have arrived."""


CALLED = tuple(endpoint for endpoint in Endpoint if endpoint is not Endpoint.ORDER_EXPIRED)
"""The endpoints that Prosody may call."""


class Route(NamedTuple):
    """What a path means, or the name of an endpoint on the link."""

    endpoint: Endpoint
    config_too: bool = False
    """The question is for a decision and, if it is an allow, for the room config too."""


def routes_below(prefix: str) -> dict[str, Route]:
    """All paths that are known."""
    return {f"{prefix}/{endpoint}": Route(endpoint) for endpoint in CALLED}


def route_of(request: web.BaseRequest, routes: dict[str, Route]) -> Route:
    """The route of a request; raises Problem if there is none."""
    route = routes.get(request.path)
    if route is None:
        prefix = next(iter(routes)).rpartition("/")[0]
        names = ",".join(CALLED)
        raise Problem(404, f"there is nothing here; the endpoints are {prefix}/{{{names}}}")
    return route


def check_head(request: web.BaseRequest) -> None:
    """Raises Problem unless it is a POST with uncompressed JSON."""
    if request.method != hdrs.METH_POST:
        raise Problem(405, f"{request.method} is not understood here; use POST", Allow="POST")
    headers = request.headers
    if headers.get(hdrs.CONTENT_TYPE) != JSON and not _is_json(request):
        raise Problem(415, "the body must be application/json in UTF-8; send Content-Type: application/json")
    if headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise Problem(415, "the body must not be compressed; leave Content-Encoding out")


def _is_json(request: web.BaseRequest) -> bool:
    return request.content_type == JSON and (request.charset or "utf-8").lower() in ("utf-8", "utf8")


async def read_body(request: web.BaseRequest) -> bytes:
    """The body, within its limits of size and time; raises Problem."""
    content = request.content
    try:
        if content.is_eof():  # it came together with the head, as most do: nothing to wait for, no timer to set
            whole = content.read_nowait()
            _check_size(whole)
            return whole
        return await _read_chunks(request)
    except TimeoutError:
        raise Problem(408, f"the body did not arrive within {BODY_SECONDS:.0f} s", Connection="close") from None
    except (web.RequestPayloadError, ConnectionError):
        raise Problem(400, "the body broke off", Connection="close") from None


async def _read_chunks(request: web.BaseRequest) -> bytes:
    if (request.content_length or 0) > BODY_LIMIT:
        raise _too_long()
    body = bytearray()
    async with asyncio.timeout(BODY_SECONDS):
        async for chunk in request.content.iter_any():
            body += chunk
            _check_size(body)
    return bytes(body)


def _check_size(body: bytes | bytearray) -> None:
    if len(body) > BODY_LIMIT:
        raise _too_long()


def _too_long() -> Problem:
    return Problem(413, f"the body is longer than {BODY_LIMIT} bytes", Connection="close")
