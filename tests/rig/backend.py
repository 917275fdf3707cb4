"""A meeting service that can go wrong in every way a backend can, on real sockets, switchable while it runs.

    async with Backend() as backend:
        await backend.goes(Fault.HALF_BODY)
        ...
        backend.requests, backend.most_at_once

It speaks HTTP by hand, since no HTTP library would do most of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sidecar.core.model import Endpoint, Failure, Kind, Misconfigured, Outcome, Unavailable

PREFIX = "/webhooks/jitsi"
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
"""The faults that are a whole HTTP answer."""


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


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came."""

    endpoint: str
    head: bytes
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    at: float
    connection: int

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def room(self) -> str:
        return str(self.document["roomName"])


Decide = Callable[[Received], tuple[int, bytes]]


def truth(request: Received) -> tuple[int, bytes]:
    """What a backend that is well says: rooms with `deny` in their name let nobody in."""
    room = request.room
    if request.endpoint == "validate-access":
        denied = "deny" in room or "deny" in request.document["userJid"]
        return 200, json.dumps({"allowed": not denied, "reason": f"{room} is cancelled" if denied else None}).encode()
    if request.endpoint == "room-created":
        return 200, config_of(room)
    return 204, b""


def config_of(room: str) -> bytes:
    """The settings a backend that is well sends for a room."""
    return json.dumps({"meetingTitle": room, "chatEnabled": False, "lobbyEnabled": True}).encode()


@dataclass
class Backend:
    """Use as `async with`. `tls` makes it speak https, with a certificate that may turn bad."""

    tls: bool = False
    latency: float = 0.0
    decide: Decide = truth
    requests: list[Received] = field(default_factory=list)
    most_at_once: Counter[str] = field(default_factory=Counter)
    """High-water mark of requests under way, by endpoint."""
    fault: Fault = Fault.NONE
    rooms: dict[str, Fault] = field(default_factory=dict)
    """Faults of single rooms, where the fault as a whole is NONE."""
    connections: int = 0
    extra_headers: str = ""

    def __post_init__(self) -> None:
        self._at_once: Counter[str] = Counter()
        self._open: set[asyncio.StreamWriter] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}{PREFIX}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def goes(self, fault: Fault) -> None:
        """From now on this goes wrong (or nothing any more)."""
        before, self.fault = self.fault, fault
        self._changed.set()
        self._changed = asyncio.Event()
        if fault is Fault.REFUSED:
            await self._close()
        elif before is Fault.REFUSED:
            await self._listen()
        if fault in (Fault.TLS_UNTRUSTED, Fault.TLS_GARBLED):
            self._drop_connections()

    def forget(self) -> None:
        """Count from here."""
        self.requests.clear()
        self.most_at_once.clear()

    def calls(self, endpoint: str | None = None, room: str | None = None) -> int:
        """How many requests came, of this kind."""
        return sum(
            (endpoint is None or each.endpoint == endpoint) and (room is None or each.room == room)
            for each in self.requests
        )

    async def _listen(self) -> None:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._connected, sock=listener, backlog=1024)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        self._drop_connections()
        handlers = list(self._handlers)
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    def _drop_connections(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        self._open.add(writer)
        self.connections += 1
        number = self.connections
        try:
            if self.tls:
                if self.fault is Fault.TLS_GARBLED:
                    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP here\r\n")
                    await writer.drain()
                    return
                await writer.start_tls(_context(trusted=self.fault is not Fault.TLS_UNTRUSTED))
            while await self._serve_one(reader, writer, number):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self._handlers.discard(task)
            self._open.discard(writer)
            with contextlib.suppress(Exception):
                writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:-2])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        endpoint = lines[0].split(" ")[1].rpartition("/")[2]
        request = Received(endpoint, head, headers, body, time.monotonic(), number)
        self.requests.append(request)
        self._at_once[endpoint] += 1
        self.most_at_once[endpoint] = max(self.most_at_once[endpoint], self._at_once[endpoint])
        try:
            fault = self.fault
            if fault is Fault.NONE and self.rooms:
                fault = self.rooms.get(request.room, fault)
            return await self._answer(request, fault, writer)
        finally:
            self._at_once[endpoint] -= 1

    async def _answer(self, request: Received, fault: Fault, writer: asyncio.StreamWriter) -> bool:
        if self.latency:
            await asyncio.sleep(self.latency)
        status, body = self.decide(request)
        match fault:
            case Fault.HANG:
                await self._changed.wait()
                return False
            case Fault.RESET:
                _reset(writer)
                return False
            case Fault.SLOW_HEAD:
                await asyncio.sleep(SLOW_HEAD)
            case Fault.SLOW_BODY | Fault.TRICKLE | Fault.HALF_BODY:
                writer.write(self._head(status, len(body), _JSON))
                return await self._dribble(fault, body, writer)
            case _ if fault in RESPONSES:
                status, body, kind = response(fault, Endpoint(request.endpoint).kind)
                more = {Fault.TOO_MANY: f"Retry-After: {RETRY_AFTER}\r\n", Fault.REDIRECT: f"Location: {self.url}\r\n"}
                writer.write(self._head(status, len(body), kind, more.get(fault, "")) + body)
                await writer.drain()
                return True
            case _:
                pass
        writer.write(self._head(status, len(body), _JSON, self.extra_headers) + body)
        await writer.drain()
        return True

    async def _dribble(self, fault: Fault, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if fault is Fault.HALF_BODY:
            writer.write(body[: len(body) // 2])
            await writer.drain()
            return False
        if fault is Fault.SLOW_BODY:
            await asyncio.sleep(SLOW_BODY)
            writer.write(body)
            await writer.drain()
            return True
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1.0)
        return True

    def _head(self, status: int, length: int, kind: str, more: str = "") -> bytes:
        return (
            f"HTTP/1.1 {status} Whatever\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{more}\r\n"
        ).encode()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _context(*, trusted: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TRUSTED if trusted else TLS / "stranger.pem")
    return context
