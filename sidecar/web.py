"""THE HTTP in, for Prosody: parse -> engine -> render. Knows no policy.

A low-level `web.Server` rather than an application: there are seven paths, and every answer, also to a wrong path,
is this file's own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import http
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiohttp import web

from sidecar.clock import Clock
from sidecar.core.answers import UNREACHABLE
from sidecar.core.model import Answer, Endpoint, Event, Kind, Query, Source
from sidecar.core.wire import BODY_LIMIT, Malformed, Message, query_of, read_message, traceparent_of
from sidecar.errors import DiskError, OutboxFull
from sidecar.signals import Crashed, Emit, Resolved

BODY_SECONDS = 5.0
"""Seconds in which the body of a request must have arrived."""

CACHE_NAME = "prosody-sidecar"


class Resolver(Protocol):
    """The gateway, as far as this file needs it."""

    async def resolve(self, query: Query) -> Answer:
        """An answer, always."""
        ...


class Acceptor(Protocol):
    """The outbox, as far as this file needs it."""

    async def accept(self, event: Event) -> None:
        """Return when the event is safe; raises OutboxFull or DiskError."""
        ...


@dataclass(frozen=True, slots=True)
class Manners:
    """What an operator may change while the listener runs."""

    prefix: str
    anonymous_domains: frozenset[str] = frozenset()
    identities: bool = False
    """Whether facts name users as they are, rather than by digest."""
    token: str | None = field(default=None, repr=False)
    """What Prosody has to send in X-Webhook-Secret; None: nothing."""


class _Problem(Exception):
    """An answer of RFC 9457."""

    def __init__(self, status: int, detail: str, *, field: str | None = None, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Webhooks:
    """The handler of the webhook listener."""

    def __init__(
        self,
        gateway: Resolver,
        outbox: Acceptor,
        manners: Manners,
        clock: Clock,
        new_id: Callable[[int], str],
        emit: Emit,
    ) -> None:
        """`new_id(n)` returns n random bytes in hex."""
        self.manners = manners
        self._gateway = gateway
        self._outbox = outbox
        self._clock = clock
        self._new_id = new_id
        self._emit = emit

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request; raises nothing."""
        received_at = self._clock.monotonic()
        exchange = _Exchange()
        try:
            try:
                response = await self._answer(request, received_at, exchange)
            except Malformed as error:
                raise _Problem(400, str(error), field=error.field) from None
        except _Problem as problem:
            response = _render_problem(problem)
            exchange.problem = str(problem)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end as a dropped connection
            self._emit(Crashed("webhook", error))
            response = _render_problem(_Problem(500, "this is a defect of the sidecar; its log says more"))
            exchange.problem = "defect"
        seconds = self._clock.monotonic() - received_at
        self._emit(
            Resolved(
                exchange.endpoint,
                response.status,
                seconds,
                exchange.answer,
                exchange.room,
                exchange.subject,
                exchange.problem,
                exchange.trace,
            )
        )
        return response

    def not_http(self, status: int, error: BaseException | None) -> web.Response:
        """Answer what could not even be read as a request."""
        if status >= 500 and error is not None:
            self._emit(Crashed("listener", error))
        problem = _Problem(status, "this is not HTTP as the sidecar understands it", Connection="close")
        self._emit(Resolved("other", status, 0.0, problem=str(problem)))
        return _render_problem(problem)

    async def _answer(self, request: web.BaseRequest, received_at: float, exchange: _Exchange) -> web.Response:
        _check_token(request, self.manners.token)
        endpoint = self._route(request)
        exchange.endpoint = str(endpoint)
        _check_head(request)
        body = await _read(request)
        message = read_message(endpoint, body)
        exchange.room = message.room
        trace = traceparent_of(request.headers.get("traceparent", ""))
        exchange.trace = trace or f"00-{self._new_id(16)}-{self._new_id(8)}-01"
        if endpoint.kind is Kind.EVENT:
            return await self._accept(endpoint, message, request.headers.get("Idempotency-Key", ""), exchange)
        query = query_of(endpoint, message, received_at, exchange.trace, self.manners.anonymous_domains)
        exchange.subject = query.caller if self.manners.identities else _digest(query.caller)
        exchange.answer = await self._resolve(query)
        return _render(exchange.answer)

    async def _resolve(self, query: Query) -> Answer:
        """The gateway's answer; a well-formed question is answered even where it meets a defect of ours."""
        try:
            return await self._gateway.resolve(query)
        except Exception as error:  # noqa: BLE001 - kept out by a defect, but told so, and the log says why
            self._emit(Crashed("gateway", error))
            if query.key.endpoint.kind is Kind.DECISION:
                return Answer(200, UNREACHABLE, Source.POLICY, allowed=False, detail="defect")
            return Answer(503, b"", Source.POLICY, detail="defect")

    def _route(self, request: web.BaseRequest) -> Endpoint:
        prefix, _, name = request.path.rpartition("/")
        try:
            endpoint = Endpoint(name)
        except ValueError:
            endpoint = None
        if endpoint is None or prefix != self.manners.prefix:
            raise _Problem(404, f"there is nothing here; the endpoints are {self.manners.prefix}/{{{_NAMES}}}")
        return endpoint

    async def _accept(self, endpoint: Endpoint, message: Message, key: str, exchange: _Exchange) -> web.Response:
        if not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
            key = self._new_id(16)
        event = Event(endpoint, message.room, message.body, key, self._clock.wall(), exchange.trace)
        try:
            await self._outbox.accept(event)
        except (OutboxFull, DiskError) as error:
            raise _Problem(503, f"the event was not taken, send it again: {error}", Retry_After="5") from None
        exchange.answer = Answer(202, b'{"accepted":true}', Source.OUTBOX)
        return _render(exchange.answer)


class Listener(web.Server):
    """aiohttp's server, but what is not HTTP is answered like every other mistake, and not with an echo of it."""

    def __init__(self, webhooks: Webhooks, asks: Callable[[web.BaseRequest], None], keep_alive: float) -> None:
        """Hand every request to `webhooks`, after telling `asks` of it. `keep_alive`: seconds between two requests."""
        super().__init__(self._handle)
        self._webhooks = webhooks
        self._asks = asks
        self._keep_alive = keep_alive

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        self._asks(request)
        return await self._webhooks.handle(request)

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        loop = asyncio.get_running_loop()
        manners: dict[str, Any] = {"access_log": None, "auto_decompress": False, "keepalive_timeout": self._keep_alive}
        return _Connection(self._webhooks, self, loop=loop, **manners)


class _Connection(web.RequestHandler):
    __slots__ = ("_webhooks",)

    def __init__(self, webhooks: Webhooks, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._webhooks = webhooks

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        return self._webhooks.not_http(status, exc)


class _Exchange:
    """What is found out about a request on the way."""

    endpoint = "other"
    room = ""
    subject = ""
    trace = ""
    problem = ""
    answer: Answer | None = None


def _check_token(request: web.BaseRequest, token: str | None) -> None:
    given = request.headers.get("X-Webhook-Secret", "")
    if token is not None and not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        raise _Problem(401, "X-Webhook-Secret is not the sidecar's token; set muc_webhook_secret in Prosody to it")


def _check_head(request: web.BaseRequest) -> None:
    if request.method != "POST":
        raise _Problem(405, f"{request.method} is not understood here; use POST", Allow="POST")
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() not in ("utf-8", "utf8"):
        raise _Problem(415, "the body must be application/json in UTF-8; send Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _Problem(415, "the body must not be compressed; leave Content-Encoding out")


async def _read(request: web.BaseRequest) -> bytes:
    """The body, within its bounds of size and time."""
    too_long = _Problem(413, f"the body is longer than {BODY_LIMIT} bytes", Connection="close")
    if (request.content_length or 0) > BODY_LIMIT:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise too_long
    except TimeoutError:
        raise _Problem(408, f"the body did not arrive within {BODY_SECONDS:.0f} s", Connection="close") from None
    except (web.RequestPayloadError, ConnectionError):
        raise _Problem(400, "the body broke off", Connection="close") from None
    return bytes(body)


def _render(answer: Answer) -> web.Response:
    headers = {"Cache-Status": cache_status(answer)}
    if answer.status == 503 and not answer.body:
        wait = str(answer.retry_after or 1)
        detail = "the meeting service cannot be reached, and nothing usable is remembered about this room"
        return _render_problem(_Problem(503, detail, Retry_After=wait, Cache_Status=headers["Cache-Status"]))
    return web.Response(status=answer.status, body=answer.body, headers=headers, content_type="application/json")


def cache_status(answer: Answer) -> str:
    """How the answer came about, as RFC 9211 writes it."""
    parts = [CACHE_NAME]
    if answer.source is Source.OUTBOX:
        parts.append("fwd=bypass")
    elif answer.source in (Source.HIT, Source.STALE):
        parts.append("hit")
    elif answer.forwarded is not None:
        parts.append(f"fwd={answer.forwarded}")
    if answer.forward_status is not None:
        parts.append(f"fwd-status={answer.forward_status}")
    if answer.ttl is not None:
        parts.append(f"ttl={answer.ttl}")
    if answer.stored:
        parts.append("stored")
    if answer.collapsed:
        parts.append("collapsed")
    if answer.detail is not None:
        parts.append(f"detail={answer.detail}")
    return "; ".join(parts)


def _render_problem(problem: _Problem) -> web.Response:
    document = {
        "type": "about:blank",
        "title": http.HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": str(problem),
    }
    if problem.field is not None:
        document["field"] = problem.field
    headers = {"Cache-Status": f"{CACHE_NAME}; detail=problem", **problem.headers}
    body = json.dumps(document).encode()
    response = web.Response(status=problem.status, body=body, headers=headers, content_type="application/problem+json")
    if "Connection" in headers:
        response.force_close()
    return response


def _digest(jid: str) -> str:
    """A short name for a person that is the same in every line, and is not the person's."""
    return hashlib.sha256(jid.encode("utf-8", "replace")).hexdigest()[:12] if jid else ""


_NAMES = ",".join(Endpoint)
