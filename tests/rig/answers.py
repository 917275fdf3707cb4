"""What a meeting service may answer: the one vocabulary of all tests.

backend.on("validate-access", deny("The meeting was cancelled"), room="board")
backend.on("room-created", slow(2.4, reply({"chatEnabled": False})))
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDictProxy


@dataclass(slots=True, eq=False)
class Request:
    """One question or event as it came in."""

    endpoint: str
    content: bytes
    body: Any
    """What the content says."""
    headers: CIMultiDictProxy[str]
    at: float
    """Seconds of the monotonic clock."""
    connection: int
    """Tells connections apart: the port at the other end."""
    web_request: web.Request = field(repr=False)
    config_too: bool = False
    """On the link: a join that wants the room config in the same answer."""
    status: int = 0
    """Of the answer; 0 until there is one."""

    @property
    def room(self) -> str:
        return str(self.body.get("roomName", ""))

    @property
    def key(self) -> str | None:
        """Events have an idempotency key, and questions have none."""
        return self.headers.get("Idempotency-Key")

    @property
    def wants_config(self) -> bool:
        return self.endpoint == "room-created" or self.config_too


Answer = Callable[[Request], Awaitable[web.StreamResponse]]


def raw(
    content: str | bytes,
    status: int = 200,
    content_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Answer:
    """Answers this, JSON or not."""

    async def answer(_: Request) -> web.StreamResponse:
        body = content.encode() if isinstance(content, str) else content
        return web.Response(body=body, status=status, content_type=content_type, headers=headers)

    return answer


def reply(body: Any, status: int = 200, after: float = 0.0) -> Answer:
    """Answers this JSON, `after` seconds later."""
    answer = raw(json.dumps(body), status)
    return slow(after, answer) if after else answer


def allow(after: float = 0.0) -> Answer:
    return reply({"allowed": True}, after=after)


def deny(reason: str = "Not today", after: float = 0.0) -> Answer:
    return reply({"allowed": False, "reason": reason}, after=after)


def taken() -> Answer:
    """An event is taken."""
    return raw(b"", status=202)


def allow_if(allowed: Callable[[dict[str, Any]], bool]) -> Answer:
    """Lets in those whose question this is true of."""

    async def answer(request: Request) -> web.StreamResponse:
        return web.json_response({"allowed": allowed(request.body), "reason": None})

    return answer


async def by_name(request: Request) -> web.StreamResponse:
    """Rooms and users with `deny` in their name are denied."""
    room = request.room
    denied = "deny" in room or "deny" in request.body["userJid"]
    return web.json_response({"allowed": not denied, "reason": f"{room} is cancelled" if denied else None})


def settings_of(room: str) -> bytes:
    """The settings that `settings_by_name` sends for a room."""
    return json.dumps({"meetingTitle": room, "chatEnabled": False, "lobbyEnabled": True}).encode()


async def settings_by_name(request: Request) -> web.StreamResponse:
    """Each room is called by its name."""
    return web.Response(body=settings_of(request.room), content_type="application/json")


def with_secret(secret: str, answer: Answer) -> Answer:
    """Answers only those who send this secret; the others get a 401 that is no proof of life, since it is no JSON."""

    async def checked(request: Request) -> web.StreamResponse:
        known = request.headers.get("X-Webhook-Secret") == secret
        return await (answer if known else raw("who are you?", 401, "text/plain"))(request)

    return checked


# -- late


def slow(seconds: float, answer: Answer) -> Answer:
    """The answer, so much later."""

    async def late(request: Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await answer(request)

    return late


class Held:
    """An answer that comes when the test says so; until then the other side waits."""

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


async def hang(_: Request) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


# -- broken


def reset() -> Answer:
    """Resets the connection instead of answering."""

    async def answer(request: Request) -> web.StreamResponse:
        if request.web_request.transport is not None:
            request.web_request.transport.abort()
        return web.Response()

    return answer


def truncated(answer: Answer) -> Answer:
    """Half of the body that the head announces, and the end of the connection."""

    async def half(request: Request) -> web.StreamResponse:
        begun, body = await _begin(request, answer)
        await begun.write(body[: len(body) // 2])
        if request.web_request.transport is not None:
            request.web_request.transport.close()
        return begun

    return half


def slow_body(seconds: float, answer: Answer) -> Answer:
    """The head and one byte at once, the rest so much later."""

    async def late(request: Request) -> web.StreamResponse:
        begun, body = await _begin(request, answer)
        await begun.write(body[:1])
        await asyncio.sleep(seconds)
        await begun.write(body[1:])
        return begun

    return late


def trickle(seconds: float, answer: Answer) -> Answer:
    """One byte after the other, with so much time between them."""

    async def dribble(request: Request) -> web.StreamResponse:
        begun, body = await _begin(request, answer)
        for byte in body:
            await begun.write(bytes([byte]))
            await asyncio.sleep(seconds)
        return begun

    return dribble


async def _begin(request: Request, answer: Answer) -> tuple[web.StreamResponse, bytes]:
    """Sends the head of this answer; gives the body that is to follow."""
    whole = await answer(request)
    assert isinstance(whole, web.Response)
    assert isinstance(whole.body, bytes)
    begun = web.StreamResponse(status=whole.status, headers={"Content-Length": str(len(whole.body))})
    begun.content_type = whole.content_type
    await begun.prepare(request.web_request)
    return begun, whole.body
