"""The meeting service of all tests with a real sidecar or a real Prosody: it does what a test says, and keeps a record.

    async with Backend() as backend:
        backend.on("validate-access", deny("The meeting was cancelled"), room="board")
        ...
        assert [request.room for request in backend.requests] == ["board"]

It lives in the test's own process, so that nothing it has seen is lost when a sidecar is killed, and it can close its
port and open it again, or speak another TLS there. pytest-aiohttp's server fixture can do neither: that one serves the
listeners of tests/unit. `await backend.goes(fault)` makes all of it go wrong in one of the ways of tests/rig/faults.py.

It also plays the sidecar's part before Prosody: with `backend.is_sidecar = True` it has a link, and answers `join`
there out of what is set for `validate-access` and `room-created`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from tests.rig.answers import Answer, Request, allow, by_name, reply, settings_by_name, taken
from tests.rig.faults import Fault, context_of, spoilt, tls_of
from tests.rig.link import Joined, LinkResponse, Message
from tests.rig.ports import free_port

PREFIX = "/webhooks/jitsi"
EVERYTHING_ELSE = "*"
"""Stands for the endpoints that have no answer of their own: the events."""

OPEN: Mapping[str, Answer] = {
    "validate-access": allow(),
    "room-created": reply({}),
    EVERYTHING_ELSE: taken(),
}
"""Everybody may join, rooms have no settings, events are taken."""

BY_NAME: Mapping[str, Answer] = {**OPEN, "validate-access": by_name, "room-created": settings_by_name}
"""The name of a room or a user says who is denied, and what a room is called."""


class Backend:
    """Use as `async with`. The answers are what it goes back to; with `tls` it speaks https, with its own or
    with the certificate and key in this file."""

    def __init__(self, answers: Mapping[str, Answer] = OPEN, *, tls: bool | Path = False) -> None:
        self.requests: list[Request] = []
        self.most_at_once: Counter[str] = Counter()
        """High-water mark of requests under way, by endpoint."""
        self.port = 0
        self.is_sidecar = False
        self.latency = 0.0
        """Seconds before each answer."""
        self.headers: dict[str, str] = {}
        """What each answer has besides."""
        self.fault = Fault.NONE
        self.links: list[LinkResponse] = []
        """The links that are up."""
        self._tls = tls
        self._at_first = answers
        self._answers: dict[tuple[str, str | None], Answer] = {}
        self._at_once: list[Request] = []
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.reset_answers()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{PREFIX}"

    # -- whether it is there

    async def listen(self) -> None:
        """Begins, or goes on after `stop`, on the same port."""
        app = web.Application()
        app.router.add_route("*", PREFIX + "/{endpoint}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        self.port = self.port or free_port()
        if isinstance(self._tls, Path):
            tls: ssl.SSLContext | None = context_of(self._tls)
        else:
            tls = tls_of(self.fault) if self._tls else None
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024, ssl_context=tls).start()

    async def stop(self) -> None:
        """Is gone: connections are refused, and those that were open are closed."""
        if self._runner is not None:
            self._cut_off_all()
            await self._runner.cleanup()
            self._runner = None

    async def goes(self, fault: Fault) -> None:
        """From now on this goes wrong (or nothing any more)."""
        before, self.fault = self.fault, fault
        if before is Fault.HANG:
            self._cut_off_all()
        if fault is Fault.REFUSED:
            await self.stop()
        elif before is Fault.REFUSED:
            await self.listen()
        elif self._tls and tls_of(before) is not tls_of(fault):
            await self.stop()
            await self.listen()

    def cut_links(self) -> None:
        """Ends the links without a word."""
        for link in self.links:
            link.cut()

    def _cut_off_all(self) -> None:
        self.cut_links()
        for request in self._at_once:
            if request.web_request.transport is not None:
                request.web_request.transport.abort()

    # -- what it says

    def on(self, endpoint: str, answer: Answer, room: str | None = None) -> None:
        """Sets the answer of an endpoint, for one room or for all that have none of their own."""
        self._answers[endpoint, room] = answer

    def reset_answers(self) -> None:
        """Says again what it said at first."""
        self._answers = {(endpoint, None): answer for endpoint, answer in self._at_first.items()}

    # -- what it was asked

    def forget(self) -> None:
        """Records from here on."""
        self.requests.clear()
        self.most_at_once.clear()

    def begin_again(self) -> None:
        """Is as it was at first, and has seen nothing."""
        self.forget()
        self.is_sidecar = False
        self.cut_links()
        self.reset_answers()

    def asked(self, endpoint: str | None = None, room: str | None = None) -> list[Request]:
        """The requests of an endpoint, a room, or both."""
        return [each for each in self.requests if endpoint in (None, each.endpoint) and room in (None, each.room)]

    def configs(self, room: str) -> list[Request]:
        """The requests that asked for a room's config, in either way."""
        return [each for each in self.requests if each.wants_config and each.room == room]

    def events(self, room: str | None = None) -> list[Request]:
        """The events that it took, in the order of their arrival; some may have come more than once."""
        return [each for each in self.asked(room=room) if each.key is not None and 200 <= each.status < 300]

    def first_arrivals(self, room: str) -> list[Request]:
        """The events of a room that it took, without what was repeated."""
        return list({each.key: each for each in reversed(self.events(room))}.values())[::-1]

    async def received(
        self, endpoint: str | None = None, room: str | None = None, count: int = 1, within: float = 5.0
    ) -> list[Request]:
        """Waits until so many requests of this kind have come, and gives them."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: len(self.asked(endpoint, room)) >= count)
        return self.asked(endpoint, room)

    # -- how a request goes

    async def _serve(self, web_request: web.Request) -> web.StreamResponse:
        endpoint, content = web_request.match_info["endpoint"], await web_request.read()
        if endpoint == "link":
            return await self._serve_link(web_request)
        body, peer = json.loads(content or "{}"), web_request.get_extra_info("peername")
        request = Request(endpoint, content, body, web_request.headers, time.monotonic(), peer[1], web_request)
        return await self._serve_request(request)

    async def _serve_link(self, web_request: web.Request) -> web.StreamResponse:
        """A link of a module; a meeting service has none, and such a request is not recorded."""
        if not self.is_sidecar:
            return web.Response(status=404)
        link = LinkResponse(web_request)
        await link.prepare(web_request)
        self.links.append(link)
        try:
            async with asyncio.TaskGroup() as answering:
                async for message in link.messages():
                    answering.create_task(self._answer_on_link(link, message))
        finally:
            self.links.remove(link)
        return link

    async def _answer_on_link(self, link: LinkResponse, message: Message) -> None:
        endpoint, *more = message.words
        headers = CIMultiDict({"Idempotency-Key": message.id} if message.kind == "event" else {})
        request = Request(
            endpoint,
            message.body,
            json.loads(message.body),
            CIMultiDictProxy(headers),
            time.monotonic(),
            link.peer,
            link.request,
            config_too="config" in more,
        )
        response = await self._serve_request(request)
        if isinstance(response, web.Response):
            with contextlib.suppress(ConnectionError):
                await link.answer(message, response)

    async def _serve_request(self, request: Request) -> web.StreamResponse:
        endpoint = request.endpoint
        self._at_once.append(request)
        at_once = sum(each.endpoint == endpoint for each in self._at_once)
        self.most_at_once[endpoint] = max(self.most_at_once[endpoint], at_once)
        try:
            async with self._news:
                self.requests.append(request)
                self._news.notify_all()
            return await self._answer(request)
        finally:
            self._at_once.remove(request)

    async def _answer(self, request: Request) -> web.StreamResponse:
        if self.latency:
            await asyncio.sleep(self.latency)
        response = await spoilt(self.fault, self._answer_to(request, request.endpoint))(request)
        request.status = response.status
        if not response.prepared:
            response.headers.update(self.headers)
        return response

    def _answer_to(self, request: Request, endpoint: str) -> Answer:
        names = (endpoint,) if endpoint == "join" else (endpoint, EVERYTHING_ELSE)
        for known in product(names, (request.room, None)):
            if known in self._answers:
                return self._answers[known]
        return self._join if self.is_sidecar else reply({"error": "no such page"}, status=404)

    async def _join(self, request: Request) -> web.StreamResponse:
        decision = await self._answer_to(request, "validate-access")(request)
        if not isinstance(decision, web.Response) or decision.status != 200:
            return decision
        joined = Joined(body=decision.body, status=200)
        allowed = isinstance(decision.body, bytes) and json.loads(decision.body)["allowed"] is True
        if allowed and request.wants_config:
            config = await self._answer_to(request, "room-created")(request)
            joined.config = config if isinstance(config, web.Response) else None
        return joined
