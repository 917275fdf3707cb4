"""One question or event of Prosody, from its bytes to its answer. Knows no policy, and not how the bytes came.

bytes -> message -> resolver (a question) | outbox (an event) -> the exchange holds the answer, or the problem
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.clock import Clock
from sidecar.core.answers import UNREACHABLE, config_along, with_decision
from sidecar.core.model import Answer, Endpoint, Event, Key, Kind, Query, Source
from sidecar.core.wire import Malformed, Message, config_query_of, query_of, read_message
from sidecar.errors import DiskError, OutboxFull
from sidecar.facts import Crashed, Emit, Resolved
from sidecar.web.requests import Route
from sidecar.web.responses import Problem


class Resolver(Protocol):
    """The resolver, as far as this file needs it."""

    def at_once(self, key: Key) -> Answer | None:
        """The answer, if it is in memory and nothing has to be waited for."""
        ...

    async def resolve(self, query: Query) -> Answer:
        """An answer, always."""
        ...

    def is_outdated(self, query: Query) -> bool:
        """Whether an allow that was the answer counts no more, because a deny or an order has come since."""
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
    tokens: tuple[str, ...] = field(default=(), repr=False)
    """One of these Prosody must send in X-Webhook-Secret; empty: nothing. The second one is the old one."""
    patience: float = 5.0
    """Seconds that Prosody waits for an answer."""
    deadline: float = 4.0
    """Seconds that an answer may take."""


class Exchange:
    """One question or event, and what is known about it so far."""

    endpoint = "other"
    room = ""
    subject = ""
    trace = ""
    event: Event | None = None
    query: Query | None = None
    joins: Message | None = None
    """The message of a join that needs the room config too."""
    answer: Answer | None = None
    config: Answer | None = None
    """The config for a join that is allowed. None: Prosody did not want it here, or there was too little time."""
    problem: Problem | None = None

    def __init__(self, received_at: float) -> None:
        """`received_at`: its first byte, on the monotonic clock."""
        self.received_at = received_at

    @property
    def status(self) -> int:
        """The status of the answer, as HTTP has it."""
        if self.problem is not None:
            return self.problem.status
        return self.answer.status if self.answer is not None else 0


class Questions:
    """Answers questions, and accepts events."""

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
        self._resolver = resolver
        self._outbox = outbox
        self._clock = clock
        self._new_id = new_id
        self._emit = emit

    def begin(self, unread_for: float = 0.0) -> Exchange:
        """An exchange that is read now. If it has waited in the kernel for so long that Prosody has given it up, it
        began when it arrived: then its deadline is over, and it causes no call to the backend."""
        return Exchange(self._clock.monotonic() - (unread_for if unread_for >= self.settings.patience else 0.0))

    def answer_at_once(self, exchange: Exchange, route: Route, body: bytes, key: str = "", trace: str = "") -> bool:
        """Answer it if nothing has to be waited for. False: `complete` must follow. `key`: the event's idempotency key;
        `trace`: a valid traceparent. Raises nothing."""
        try:
            exchange.endpoint = route.endpoint
            self._read(exchange, route, body, key, trace)
        except Malformed as error:
            self.refuse(exchange, Problem(400, str(error), field=error.field))
            return True
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end as a dropped connection
            self.crashed(exchange, error)
            return True
        if not self._is_remembered(exchange):
            return False
        self._report(exchange)
        return True

    async def complete(self, exchange: Exchange) -> None:
        """Answer what `answer_at_once` has read. Raises nothing."""
        try:
            if exchange.event is not None:
                await self._accept(exchange, exchange.event)
            else:
                assert exchange.query is not None, "it has been read"
                await self._resolve(exchange, exchange.query)
            self._report(exchange)
        except Problem as problem:
            self.refuse(exchange, problem)
        except Exception as error:  # noqa: BLE001 - as above
            self.crashed(exchange, error)

    def refuse(self, exchange: Exchange, problem: Problem) -> None:
        """The answer is a problem."""
        exchange.problem = problem
        self._report(exchange, str(problem))

    def crashed(self, exchange: Exchange, error: Exception) -> None:
        """The answer is that we have a defect."""
        self._emit(Crashed("webhook", error))
        exchange.problem = Problem(500, "this is a defect of the sidecar; its log says more")
        self._report(exchange, "defect")

    def _read(self, exchange: Exchange, route: Route, body: bytes, key: str, trace: str) -> None:
        settings, endpoint = self.settings, route.endpoint
        message = read_message(endpoint, body)
        exchange.room = message.room
        exchange.trace = trace = trace or self._new_trace()
        if endpoint.kind is Kind.EVENT:
            if not (0 < len(key) <= 200 and key.isascii() and key.isprintable()):
                key = self._new_id(16)
            exchange.event = Event(endpoint, message.room, body, key, self._clock.wall(), trace)
            return
        query = query_of(endpoint, message, exchange.received_at, trace, settings.anonymous_domains)
        exchange.subject = query.caller if settings.identities else _digest(query.caller)
        exchange.query = query
        if route.config_too:
            exchange.joins = message

    def _is_remembered(self, exchange: Exchange) -> bool:
        """Whether all that is asked could be answered from memory."""
        query = exchange.query
        if query is None:
            return False
        try:
            answer = self._resolver.at_once(query.key)
            if answer is None:
                return False
            exchange.answer = _marked(answer, query)
            if exchange.joins is None or not answer.allowed:
                return True
            exchange.config = self._resolver.at_once(query.key.of_config)
        except Exception as error:  # noqa: BLE001 - `complete` answers then
            self._emit(Crashed("resolver", error))
        if exchange.config is None:
            return False
        self._report_config(exchange, exchange.config, 0.0)
        return True

    async def _resolve(self, exchange: Exchange, query: Query) -> None:
        """The resolver's answers. A well-formed question gets an answer even after a defect of ours: a refusal."""
        if exchange.answer is None:
            exchange.answer = await self._decide(query)
        if exchange.joins is not None and exchange.answer.allowed:
            exchange.config = await self._config_too(exchange, exchange.answer, exchange.joins, query)
            if self._resolver.is_outdated(query):  # the config may have taken seconds
                exchange.answer = await self._decide(query)
        if not exchange.answer.allowed:
            exchange.config = None

    async def _decide(self, query: Query) -> Answer:
        try:
            answer = await self._resolver.resolve(query)
        except Exception as error:  # noqa: BLE001 - the user sees a reason, and the log says more
            self._emit(Crashed("resolver", error))
            answer = _refusal(query)
        return _marked(answer, query)

    async def _config_too(
        self, exchange: Exchange, answered: Answer, message: Message, decision: Query
    ) -> Answer | None:
        """The config for a join that is allowed: the backend has just sent it along, it is in memory, or it is a
        question of its own. None: Prosody asks with `room-created`."""
        started_at = self._clock.monotonic()
        try:
            answer = config_along(answered) or self._resolver.at_once(decision.key.of_config)
            if answer is None:
                query = config_query_of(message, decision)._replace(received_at=started_at)
                answer = await self._resolver.resolve_along(query, decision)
        except Exception as error:  # noqa: BLE001 - the decision is there, and is answered without the config
            self._emit(Crashed("resolver", error))
            return None
        if answer is not None:
            self._report_config(exchange, answer, self._clock.monotonic() - started_at)
        return answer

    async def _accept(self, exchange: Exchange, event: Event) -> None:
        try:
            await self._outbox.accept(event)
        except (OutboxFull, DiskError) as error:
            raise Problem(503, f"the event was not taken, send it again: {error}", Retry_After="5") from None
        exchange.answer = Answer(202, b'{"accepted":true}', Source.OUTBOX)

    def _report(self, exchange: Exchange, problem: str = "") -> None:
        seconds = self._clock.monotonic() - exchange.received_at
        answer = exchange.answer if exchange.problem is None else None
        fact = Resolved(
            exchange.endpoint,
            exchange.status,
            seconds,
            answer,
            exchange.room,
            exchange.subject,
            problem,
            exchange.trace,
        )
        self._emit(fact)

    def _report_config(self, exchange: Exchange, answer: Answer, seconds: float) -> None:
        fact = Resolved(Endpoint.ROOM_CREATED, answer.status, seconds, answer, exchange.room, "", "", exchange.trace)
        self._emit(fact)

    def _new_trace(self) -> str:
        number = self._new_id(24)
        return f"00-{number[:32]}-{number[32:]}-01"


def _marked(answer: Answer, query: Query) -> Answer:
    """A decision says who has decided, and has an id."""
    return with_decision(answer, query.traceparent) if query.key.endpoint.kind is Kind.DECISION else answer


def _refusal(query: Query) -> Answer:
    if query.key.endpoint.kind is Kind.DECISION:
        return Answer(200, UNREACHABLE, Source.POLICY, allowed=False, detail="defect")
    return Answer(503, b"", Source.POLICY, detail="defect")


def _digest(jid: str) -> str:
    """A pseudonym: the same for one user in every line, and not the user's name."""
    return hashlib.sha256(jid.encode("utf-8", "replace")).hexdigest()[:12] if jid else ""
