"""A meeting service that writes any bytes, at any time: for what no HTTP library would send.

    async with RawBackend(answer) as backend: ...

`answer` gets the body of a question and gives the bytes of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

RawAnswer = Callable[[dict[str, Any]], bytes]
CLOSE = b"\0close"
"""At the end of an answer: the connection is closed after it. It is not sent itself."""

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class RawBackend:
    """Use as `async with`."""

    def __init__(self, answer: RawAnswer, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.host = host
        self.port = 0
        self.greeting = b""
        """What it writes on each new connection, unasked."""
        self.asked: list[tuple[int, str, dict[str, Any]]] = []
        """Each question: the number of its connection, its path, its body."""
        self.open: list[asyncio.StreamWriter] = []
        """Every connection there has been."""
        self._tls = tls
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}/webhooks/jitsi"

    @property
    def connections(self) -> list[int]:
        """The number of the connection of each question."""
        return [connection for connection, _, _ in self.asked]

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Closes the port and all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self.open:
            writer.transport.abort()

    def write_unasked(self, data: bytes) -> None:
        """Writes on the connection of the last question."""
        self.open[self.connections[-1]].write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.open)
        self.open.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if self.greeting:
                writer.write(self.greeting)
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = json.loads(await reader.readexactly(int(length[1]) if length else 0) or b"{}")
                self.asked.append((number, head.split()[1].decode(), body))
                answer = self.answer(body)
                writer.write(answer.removesuffix(CLOSE))
                await writer.drain()
                if answer.endswith(CLOSE):
                    break
        writer.close()


def http(
    body: bytes | dict[str, Any], *, status: str = "200 OK", headers: Sequence[str] = (), length: int | None = None
) -> bytes:
    """A whole answer; `length` may be a lie."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = len(content) if length is None else length
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {said}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content
