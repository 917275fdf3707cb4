"""A meeting service that does what a test tells it, on a real socket.

    async with Webhook.start() as hook:
        hook.on("validate-access", deny("The meeting was cancelled"), room="board")
        ...
        assert [r.body["roomName"] for r in hook.requests] == ["board"]

It plays the sidecar's part, or the backend's, and writes down all it was asked. With `hook.is_sidecar = True` it names
itself as one and answers `join`, out of what is set for `validate-access` and `room-created`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

Json = dict[str, Any]
Answer = Callable[["Request"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Request:
    """One question or event as it came in."""

    endpoint: str
    body: Json
    headers: Mapping[str, str]
    at: float
    connection: int  # tells connections apart: the port at the other end
    web_request: web.Request = field(repr=False, compare=False)

    @property
    def room(self) -> str:
        return str(self.body.get("roomName", ""))

    @property
    def wants_config(self) -> bool:
        return self.endpoint == "room-created" or self.web_request.query.get("config") == "1"


def reply(body: Any, status: int = 200, after: float = 0.0) -> Answer:
    """Answers this JSON, `after` seconds later."""

    async def answer(_: Request) -> web.StreamResponse:
        if after:
            await asyncio.sleep(after)
        return web.json_response(body, status=status)

    return answer


def allow(after: float = 0.0) -> Answer:
    return reply({"allowed": True}, after=after)


def deny(reason: str = "Not today", after: float = 0.0) -> Answer:
    return reply({"allowed": False, "reason": reason}, after=after)


def raw(text: str, status: int = 200, content_type: str = "application/json") -> Answer:
    """Answers this text, JSON or not."""

    async def answer(_: Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type=content_type)

    return answer


def reset() -> Answer:
    """Cuts the connection instead of answering."""

    async def answer(request: Request) -> web.StreamResponse:
        transport = request.web_request.transport
        if transport is not None:
            transport.abort()
        return web.Response()

    return answer


class Held:
    """An answer that comes when the test says so; until then the other side hangs."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._released = asyncio.Event()

    async def __call__(self, request: Request) -> web.StreamResponse:
        await self._released.wait()
        return await self._answer(request)

    def release(self) -> None:
        self._released.set()


def hold(answer: Answer) -> Held:
    return Held(answer)


class Webhook:
    """The server; see the module's page."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.port = 0
        self.is_sidecar = False
        self._answers: dict[tuple[str, str | None], Answer] = {}
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.reset_answers()

    @classmethod
    @asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        hook = cls()
        await hook.listen()
        try:
            yield hook
        finally:
            await hook.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks/jitsi"

    async def listen(self) -> None:
        """Begins, or goes on after `stop`, on the same port."""
        app = web.Application()
        app.router.add_post("/webhooks/jitsi/{endpoint}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024)
        await site.start()
        if not self.port:
            self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def reset_answers(self) -> None:
        """Everybody may join, rooms have no settings, events are taken."""
        self._answers = {
            ("validate-access", None): allow(),
            ("room-created", None): reply({}),
        }

    def forget(self) -> None:
        self.requests.clear()
        self.is_sidecar = False
        self.reset_answers()

    def on(self, endpoint: str, answer: Answer, room: str | None = None) -> None:
        """Sets the answer of an endpoint, for one room or for all that have none of their own."""
        self._answers[endpoint, room] = answer

    def asked(self, endpoint: str, room: str | None = None) -> list[Request]:
        return [r for r in self.requests if r.endpoint == endpoint and room in (None, r.room)]

    def configs(self, room: str) -> list[Request]:
        """The requests that asked for a room's config, in either way."""
        return [r for r in self.requests if r.wants_config and r.room == room]

    async def received(
        self, endpoint: str, room: str | None = None, count: int = 1, within: float = 5.0
    ) -> list[Request]:
        """Waits until the endpoint was asked `count` times, and gives those requests."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: len(self.asked(endpoint, room)) >= count)
        return self.asked(endpoint, room)

    async def _serve(self, web_request: web.Request) -> web.StreamResponse:
        endpoint = web_request.match_info["endpoint"]
        body = await web_request.json()
        peer = web_request.transport.get_extra_info("peername") if web_request.transport else None
        headers = dict(web_request.headers)
        request = Request(endpoint, body, headers, time.monotonic(), peer[1] if peer else 0, web_request)
        async with self._news:
            self.requests.append(request)
            self._news.notify_all()
        response = await self._answer(endpoint, request)
        if self.is_sidecar and not response.prepared:
            response.headers.setdefault("Cache-Status", "prosody-sidecar; fwd=miss")
        return response

    async def _answer(self, endpoint: str, request: Request) -> web.StreamResponse:
        answer = self._answers.get((endpoint, request.room)) or self._answers.get((endpoint, None))
        if answer is not None:
            return await answer(request)
        if endpoint == "join":
            return await self._join(request) if self.is_sidecar else web.Response(status=404, text="no such page")
        return web.Response(status=202)

    async def _join(self, request: Request) -> web.StreamResponse:
        decision = await self._answer("validate-access", request)
        if not isinstance(decision, web.Response) or decision.status != 200:
            return decision
        texts, headers = [decision.body], {}
        allowed = isinstance(decision.body, bytes) and json.loads(decision.body)["allowed"] is True
        if allowed and request.wants_config:
            config = await self._answer("room-created", request)
            if isinstance(config, web.Response):
                texts.append(config.body)
                headers["Config-Status"] = str(config.status)
        body = b"".join(b"\x1e%b\n" % text for text in texts if isinstance(text, bytes))
        return web.Response(body=body, headers=headers, content_type="application/json-seq")
