"""A sidecar that writes any bytes on the link, at any time, or none: for what no library would send.

    async with RawSidecar() as sidecar: ...
        link = await sidecar.link()
        question = await link.reads()
        link.writes(f"answer {question.id} 200\n{{}}")

Over HTTP it is an honest one: everybody may join, and rooms have no settings, unless a test says otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.rig.link import PROTOCOL, Message

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_KEY = re.compile(rb"sec-websocket-key: *(\S+)", re.IGNORECASE)
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 1, 8


def frame(content: str | bytes, opcode: int = TEXT) -> bytes:
    """A whole frame, as a server sends it."""
    data = content.encode() if isinstance(content, str) else content
    if len(data) < 126:
        head = bytes((0x80 | opcode, len(data)))
    elif len(data) < 65536:
        head = struct.pack(">BBH", 0x80 | opcode, 126, len(data))
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 127, len(data))
    return head + data


class RawLink:
    """A link that is up. It answers pings until it `stops_reading`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._reading = asyncio.ensure_future(self._read())

    async def reads(self, *kinds: str, within: float = 5.0) -> Message:
        """The next message of one of these kinds; a question or an event if none is named."""
        async with asyncio.timeout(within):
            while True:
                message = await self._messages.get()
                if message.kind in (kinds or ("ask", "event")):
                    return message

    def stops_reading(self) -> None:
        self._reading.cancel()
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def writes(self, text: str) -> None:
        self.writes_bytes(frame(text))

    def writes_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    def cut(self) -> None:
        """Ends it without a word, after what was written."""
        self._writer.close()

    async def is_over(self, within: float = 5.0) -> None:
        """Waits until the module has ended it."""
        await asyncio.wait_for(self._reading, within)

    async def _read(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                opcode, data = await self._frame()
                if opcode == CLOSE:
                    return
                message = Message.read(data.decode())
                if message.kind == "ping":
                    self.writes(f"pong {message.id}")
                await self._messages.put(message)

    async def _frame(self) -> tuple[int, bytes]:
        head, size = await self._reader.readexactly(2)
        size &= 0x7F
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(await self._reader.readexactly(width), "big")
        key = await self._reader.readexactly(4)
        masked = await self._reader.readexactly(size)
        mask = key * (size // 4 + 1)
        return head & 0xF, bytes(a ^ b for a, b in zip(masked, mask, strict=False))


Handshake = Callable[[bytes], bytes | None]


def accepted(key: bytes, protocol: str = PROTOCOL) -> bytes:
    """The answer to a good handshake."""
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Accept: {accept}", f"Sec-WebSocket-Protocol: {protocol}", "", ""]
    return "\r\n".join(lines).encode()


class RawSidecar:
    """Use as `async with`."""

    def __init__(self, handshake: Handshake = accepted) -> None:
        """`handshake` gives the answer to a key; None: no answer at all."""
        self.handshake = handshake
        self.over_http: Callable[[str, dict[str, Any]], dict[str, Any]] = _honest
        self.posts: list[tuple[str, dict[str, Any], str]] = []
        """Each request over HTTP: endpoint, body, idempotency key."""
        self.handshakes = 0
        self.url = ""
        self._links: asyncio.Queue[RawLink] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/webhooks/jitsi"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def link(self, within: float = 5.0) -> RawLink:
        """The next link, when the module has said hello."""
        async with asyncio.timeout(within):
            link = await self._links.get()
            await link.reads("hello")
        return link

    def asked(self, endpoint: str, room: str) -> int:
        """How often this was asked over HTTP."""
        return sum(each == endpoint and body.get("roomName") == room for each, body, _ in self.posts)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            key = _KEY.search(head)
            if key is None:
                await self._post(head, reader, writer)
                return
            self.handshakes += 1
            answer = self.handshake(key[1])
            if answer is None:
                return
            writer.write(answer)
            if answer == accepted(key[1]):
                await self._links.put(RawLink(reader, writer))
            else:
                writer.close()

    async def _post(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = _LENGTH.search(head)
        body = json.loads(await reader.readexactly(int(length[1]) if length else 0))
        endpoint = head.split()[1].decode().rpartition("/")[2]
        key = re.search(rb"idempotency-key: *(\S+)", head, re.IGNORECASE)
        self.posts.append((endpoint, body, key[1].decode() if key else ""))
        content = json.dumps(self.over_http(endpoint, body)).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))
        writer.close()


def _honest(endpoint: str, _: dict[str, Any]) -> dict[str, Any]:
    return {"allowed": True} if endpoint == "validate-access" else {}
