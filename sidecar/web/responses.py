"""Answers and problems as bytes of HTTP."""

from __future__ import annotations

import asyncio
import http
import json
from email.utils import formatdate

from aiohttp import web

from sidecar.clock import Clock
from sidecar.core.model import Answer, Source

CACHE_NAME = "prosody-sidecar"
JSON = "application/json"
PROBLEM = "application/problem+json"


class Problem(Exception):
    """An error response as in RFC 9457."""

    def __init__(self, status: int, detail: str, *, field: str | None = None, **headers: str) -> None:
        """`detail` ends with what to do; `field` is the one that is wrong. `Retry_After="5"` is a header."""
        super().__init__(detail)
        self.status = status
        self.field = field
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Writes:
    """What is sent in one turn of the event loop is written at its end. A write fills the processor's caches with the
    kernel: with one after each decision, an answer from memory takes a quarter more time."""

    def __init__(self) -> None:
        """Nothing to write yet."""
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []

    def add(self, transport: asyncio.Transport, content: bytes) -> None:
        """Write this, after what was added before. It is written when a task that waits for one turn goes on."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write)
        self._waiting.append((transport, content))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, content in waiting:
            if not transport.is_closing():
                transport.write(content)


class FullResponse(web.StreamResponse):
    """A complete response, sent in one write. aiohttp would format each header by itself, which takes longer than a
    whole decision from the cache."""

    def __init__(self, status: int, head: str, body: bytes, writes: Writes, *, closes: bool = False) -> None:
        """`head` is complete header lines. They must not contain text from outside."""
        super().__init__(status=status)
        self._head = head
        self._content = body
        self._writes = writes
        self._stays = False if closes else None
        self._request: web.BaseRequest | None = None

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection stays open for another request; None: `prepare` will find out."""
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> None:
        """Have the complete response written."""
        if self._stays is None:
            self._stays = request.keep_alive
        connection = ""
        if not self._stays:
            connection = "Connection: close\r\n"
        elif request.version < (1, 1):
            connection = "Connection: keep-alive\r\n"
        head = f"HTTP/1.1 {self.status} {self.reason}\r\n{self._head}{connection}\r\n".encode("ascii")
        if request.transport is None:
            raise ConnectionResetError("the client has closed the connection")
        self._request = request
        self._writes.add(request.transport, head if request.method == "HEAD" else head + self._content)

    async def write_eof(self, data: bytes = b"") -> None:
        """Wait until it is written, since aiohttp may close the connection next, and while too much of what was written
        is still in the buffer."""
        if self._request is not None:
            await asyncio.sleep(0)
            await self._request.writer.drain()


class Renderer:
    """Makes the responses."""

    def __init__(self, clock: Clock) -> None:
        """`clock` is for the header `Date`."""
        self._clock = clock
        self._writes = Writes()
        self._second = 0
        self._date = ""

    def answer(self, answer: Answer) -> FullResponse:
        """The response for one answer."""
        if answer.status == 503 and not answer.body:
            return self.problem(nothing_usable(answer))
        return self._response(answer.status, JSON, answer.body, f"Cache-Status: {cache_status(answer)}\r\n")

    def problem(self, problem: Problem) -> FullResponse:
        """The response for a problem."""
        headers = {"Cache-Status": f"{CACHE_NAME}; detail=problem", **problem.headers}
        closes = headers.pop("Connection", "") == "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return self._response(problem.status, PROBLEM, document_of(problem), lines, closes=closes)

    def _response(
        self, status: int, content_type: str, body: bytes, lines: str, *, closes: bool = False
    ) -> FullResponse:
        head = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nDate: {self._now()}\r\n{lines}"
        return FullResponse(status, head, body, self._writes, closes=closes)

    def _now(self) -> str:
        wall = self._clock.wall()
        if int(wall) != self._second:
            self._second, self._date = int(wall), formatdate(wall, usegmt=True)
        return self._date


def cache_status(answer: Answer) -> str:
    """How the answer came about, as RFC 9211 writes it."""
    if answer.source is Source.HIT and answer.detail is None:
        return f"{CACHE_NAME}; hit; ttl={answer.ttl}"
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


def nothing_usable(answer: Answer) -> Problem:
    """What to answer where there is no room config."""
    detail = "the meeting service cannot be reached, and nothing usable is remembered about this room"
    wait = str(answer.retry_after or 1)
    return Problem(503, detail, Retry_After=wait, Cache_Status=cache_status(answer))


def document_of(problem: Problem) -> bytes:
    """The body of a problem."""
    document = {
        "type": "about:blank",
        "title": http.HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": str(problem),
    }
    if problem.field is not None:
        document["field"] = problem.field
    return json.dumps(document).encode()
