"""One request of Prosody, from start to end. Knows no policy.

request -> token, route, head, body -> resolver (a question) | outbox (an event) -> response
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from aiohttp import web

from sidecar.clock import Clock, unread_for
from sidecar.core.answers import UNREACHABLE
from sidecar.core.model import Answer, Endpoint, Event, Kind, Query, Source
from sidecar.core.wire import Malformed, Message, config_query_of, query_of, read_message, traceparent_of
from sidecar.errors import DiskError, OutboxFull
from sidecar.facts import Crashed, Emit, Resolved
from sidecar.web.auth import check_token
from sidecar.web.requests import check_head, read_body, route_of, routes_below
from sidecar.web.responses import FullResponse, Problem, Renderer


class Resolver(Protocol):
    """The resolver, as far as this file needs it."""

    async def resolve(self, query: Query) -> Answer:
        """An answer, always."""
        ...

    async def resolve_along(self, query: Query, first: Query) -> Answer | None:
        """An answer to one more question in the time that the first one has left; None: there was too little."""
        ...


class Acceptor(Protocol):
    """The outbox, as far as this file needs it."""

    async def accept(self, event: Event) -> None:
        """Return when the event is safe; raises OutboxFull or DiskError."""
        ...


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """What a reload of the config may change."""

    prefix: str
    anonymous_domains: frozenset[str] = frozenset()
    identities: bool = False
    """Whether facts name users as they are, rather than by digest."""
    token: str | None = field(default=None, repr=False)
    """What Prosody must send in X-Webhook-Secret; None: nothing."""
    patience: float = 5.0
    """Seconds that Prosody waits for an answer."""


class Webhooks:
    """The handler of the webhook listener."""

    def __init__(
        self,
        resolver: Resolver,
        outbox: Acceptor,
        settings: WebhookSettings,
        clock: Clock,
        new_id: Callable[[int], str],
        emit: Emit,
    ) -> None:
        """`new_id(n)` returns n random bytes in hex."""
        self.settings = settings
        self._routes = routes_below(settings.prefix)
        self._resolver = resolver
        self._outbox = outbox
        self._clock = clock
        self._new_id = new_id
        self._emit = emit
        self._render = Renderer(clock)

    async def handle(self, request: web.BaseRequest) -> FullResponse:
        """Answer one request; raises nothing."""
        received_at = self._received_at(request)
        exchange = _Exchange()
        try:
            response = await self._answer(request, received_at, exchange)
        except Malformed as error:
            exchange.problem = str(error)
            response = self._render.problem(Problem(400, str(error), field=error.field))
        except Problem as problem:
            exchange.problem = str(problem)
            response = self._render.problem(problem)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end as a dropped connection
            self._emit(Crashed("webhook", error))
            exchange.problem = "defect"
            response = self._render.problem(Problem(500, "this is a defect of the sidecar; its log says more"))
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

    def _received_at(self, request: web.BaseRequest) -> float:
        """Now; or when it arrived, if it has waited in the kernel for so long that Prosody has given it up. Then its
        deadline is over, and it causes no call to the backend."""
        now, unread = self._clock.monotonic(), unread_for(request.transport)
        return now - unread if unread >= self.settings.patience else now

    def not_http(self, status: int, error: BaseException | None) -> FullResponse:
        """Answer what cannot be read as an HTTP request."""
        if status >= 500 and error is not None:
            self._emit(Crashed("listener", error))
        problem = Problem(status, "this is not HTTP as the sidecar understands it", Connection="close")
        self._emit(Resolved("other", status, 0.0, problem=str(problem)))
        return self._render.problem(problem)

    async def _answer(self, request: web.BaseRequest, received_at: float, exchange: _Exchange) -> FullResponse:
        settings, headers = self.settings, request.headers
        if settings.token is not None:
            check_token(request, settings.token)
        route = route_of(request, self._routes)
        endpoint = route.endpoint
        exchange.endpoint = endpoint
        check_head(request)
        message = read_message(endpoint, await read_body(request))
        exchange.room = message.room
        exchange.trace = traceparent_of(headers.get("traceparent", "")) or self._new_trace()
        if endpoint.kind is Kind.EVENT:
            exchange.answer = await self._accept(endpoint, message, headers.get("Idempotency-Key", ""), exchange.trace)
            return self._render.answer(exchange.answer)
        query = query_of(endpoint, message, received_at, exchange.trace, settings.anonymous_domains)
        exchange.subject = query.caller if settings.identities else _digest(query.caller)
        exchange.answer = await self._resolve(query)
        if not route.joins:
            return self._render.answer(exchange.answer)
        config = None
        if route.config_too and exchange.answer.allowed:
            config = await self._config_too(config_query_of(message, query), query)
        return self._render.joined(exchange.answer, config)

    async def _resolve(self, query: Query) -> Answer:
        """The resolver's answer. A well-formed question gets an answer even after a defect of ours: a refusal."""
        try:
            return await self._resolver.resolve(query)
        except Exception as error:  # noqa: BLE001 - the user sees a reason, and the log says more
            self._emit(Crashed("resolver", error))
            if query.key.endpoint.kind is Kind.DECISION:
                return Answer(200, UNREACHABLE, Source.POLICY, allowed=False, detail="defect")
            return Answer(503, b"", Source.POLICY, detail="defect")

    async def _config_too(self, query: Query, decision: Query) -> Answer | None:
        """The config for a join that is allowed, as a question of its own; None: Prosody asks with `room-created`."""
        started_at = self._clock.monotonic()
        try:
            answer = await self._resolver.resolve_along(query._replace(received_at=started_at), decision)
        except Exception as error:  # noqa: BLE001 - the decision is there, and is answered without the config
            self._emit(Crashed("resolver", error))
            return None
        if answer is not None:
            seconds = self._clock.monotonic() - started_at
            endpoint, room = query.key.endpoint, query.key.room
            self._emit(Resolved(endpoint, answer.status, seconds, answer, room, trace=query.traceparent))
        return answer

    async def _accept(self, endpoint: Endpoint, message: Message, key: str, trace: str) -> Answer:
        if not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
            key = self._new_id(16)
        try:
            await self._outbox.accept(Event(endpoint, message.room, message.body, key, self._clock.wall(), trace))
        except (OutboxFull, DiskError) as error:
            raise Problem(503, f"the event was not taken, send it again: {error}", Retry_After="5") from None
        return Answer(202, b'{"accepted":true}', Source.OUTBOX)

    def _new_trace(self) -> str:
        number = self._new_id(24)
        return f"00-{number[:32]}-{number[32:]}-01"


class _Exchange:
    """What is known about one request so far, for the fact that is emitted at its end."""

    endpoint = "other"
    room = ""
    subject = ""
    trace = ""
    problem = ""
    answer: Answer | None = None


def _digest(jid: str) -> str:
    """A pseudonym: the same for one user in every line, and not the user's name."""
    return hashlib.sha256(jid.encode("utf-8", "replace")).hexdigest()[:12] if jid else ""
