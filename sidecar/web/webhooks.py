"""One HTTP request of Prosody: token, route, head and body, then an answer (questions.py) as a response."""

from __future__ import annotations

from aiohttp import web

from sidecar.clock import Clock, unread_for
from sidecar.core.wire import traceparent_of
from sidecar.facts import Crashed, Emit, Resolved
from sidecar.web.auth import check_token
from sidecar.web.hosts import Hosts
from sidecar.web.questions import Questions
from sidecar.web.requests import check_head, read_body, route_of, routes_below
from sidecar.web.responses import FullResponse, Problem, Renderer


class Webhooks:
    """The handler of the webhook listener."""

    def __init__(self, questions: Questions, hosts: Hosts, clock: Clock, emit: Emit) -> None:
        """`clock` is for the header `Date`."""
        self._questions = questions
        self._hosts = hosts
        self._emit = emit
        self._routes = routes_below(questions.settings.prefix)
        self._render = Renderer(clock)

    async def handle(self, request: web.BaseRequest) -> FullResponse:
        """Answer one request; raises nothing."""
        questions, headers = self._questions, request.headers
        exchange = questions.begin(unread_for(request.transport))
        try:
            check_token(request, questions.settings.tokens)
            route = route_of(request, self._routes)
            exchange.endpoint = route.endpoint
            check_head(request)
            body = await read_body(request)
            key, trace = headers.get("Idempotency-Key", ""), traceparent_of(headers.get("traceparent", ""))
            if not questions.answer_at_once(exchange, route, body, key, trace):
                await questions.complete(exchange)
        except Problem as problem:
            questions.refuse(exchange, problem)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end as a dropped connection
            questions.crashed(exchange, error)
        if exchange.problem is not None:
            return self._render.problem(exchange.problem)
        assert exchange.answer is not None, "an exchange ends with an answer or a problem"
        if exchange.query is not None:
            self._hosts.asked_over_http(exchange.query.key.room_jid)
        return self._render.answer(exchange.answer)

    def not_http(self, status: int, error: BaseException | None) -> FullResponse:
        """Answer what cannot be read as an HTTP request."""
        if status >= 500 and error is not None:
            self._emit(Crashed("listener", error))
        problem = Problem(status, "this is not HTTP as the sidecar understands it", Connection="close")
        self._emit(Resolved("other", status, 0.0, problem=str(problem)))
        return self._render.problem(problem)
