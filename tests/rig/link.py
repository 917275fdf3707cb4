"""Both ends of the link, for tests: a module before a real sidecar, and a sidecar before a real Prosody.

async with Link.open(sidecar.webhooks) as link:
    answer = await link.asks("validate-access", {"roomName": "standup", "userJid": "ann@example.com"})
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import WSMsgType, web

PROTOCOL = "prosody-sidecar.v1"
HELLO = {"version": "0.2.0", "host": "conference.example.com", "boot": "1-1"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the link."""

    kind: str
    id: str
    words: tuple[str, ...]
    body: bytes
    is_old: bool = False
    """Whether the sidecar says that the meeting service could not be asked now."""

    @classmethod
    def read(cls, text: str) -> Self:
        head, _, body = text.partition("\n")
        kind, ident, *words = head.split(" ")
        is_old = kind == "answer" and words[-1:] == ["old"]
        return cls(kind, ident, tuple(words[:-1] if is_old else words), body.encode(), is_old)

    @property
    def status(self) -> int:
        return int(self.words[0])

    @property
    def document(self) -> Any:
        """The body, or the decision in it."""
        return json.loads(self.body[: int(self.words[2])] if self.words[2:] else self.body)

    @property
    def config_status(self) -> int | None:
        return int(self.words[1]) if self.words[1:] else None

    @property
    def config(self) -> bytes | None:
        return self.body[int(self.words[2]) :] if self.words[2:] else None


class Link:
    """The end of a module. What comes is sorted by kind and ID."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list[Message] = []
        """All that has come."""
        self._last_id = 0
        self._news = asyncio.Condition()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, hello: Mapping[str, Any] | None = HELLO, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Self]:
        """A link that is up; without a hello, only the handshake is made."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{url}/link", protocols=[PROTOCOL], headers=headers, max_msg_size=0) as socket,
        ):
            link = cls(socket)
            reading = asyncio.ensure_future(link._read())
            try:
                if hello is not None:
                    await link.says("hello", "0", body=json.dumps(hello).encode())
                    await link.hears("hello", "0")
                yield link
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def says(self, kind: str, ident: str, *words: str, body: bytes = b"") -> None:
        await self.socket.send_str(f"{' '.join((kind, ident, *words))}\n{body.decode()}")

    async def begins(self, endpoint: str, body: Mapping[str, Any]) -> str:
        """Asks; the ID of the question."""
        self._last_id += 1
        await self.says("ask", str(self._last_id), endpoint, body=json.dumps(body).encode())
        return str(self._last_id)

    async def asks(self, endpoint: str, body: Mapping[str, Any]) -> Message:
        return await self.hears("answer", await self.begins(endpoint, body))

    async def event(self, endpoint: str, room: str, key: str) -> Message:
        """Something happened in a room."""
        await self.says("event", key, endpoint, body=json.dumps({"roomName": room, "timestamp": 1}).encode())
        return await self.hears("taken", key)

    async def hears(self, kind: str, ident: str, within: float = 10.0) -> Message:
        """Waits for a message."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: self._find(kind, ident) is not None)
        found = self._find(kind, ident)
        assert found is not None
        return found

    async def ends(self, within: float = 10.0) -> int | None:
        """Waits until the other side has closed the link; its code."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(lambda: self.socket.closed)
        return self.socket.close_code

    def counts(self) -> Counter[str]:
        """How often each ID was answered."""
        return Counter(message.id for message in self.seen if message.kind in ("answer", "taken"))

    def _find(self, kind: str, ident: str) -> Message | None:
        return next((each for each in self.seen if (each.kind, each.id) == (kind, ident)), None)

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is WSMsgType.TEXT:
                async with self._news:
                    self.seen.append(Message.read(message.data))
                    self._news.notify_all()
        async with self._news:
            self._news.notify_all()


class Joined(web.Response):
    """The answer to a join, and the config that comes with it."""

    config: web.Response | None = None


class LinkResponse(web.WebSocketResponse):
    """The end of a sidecar."""

    def __init__(self, request: web.Request) -> None:
        super().__init__(protocols=[PROTOCOL], compress=False, timeout=1.0)
        self.request = request
        self.hello: dict[str, Any] = {}
        """What the module has said of itself."""

    @property
    def peer(self) -> int:
        """The port at the other end."""
        port: int = self.request.get_extra_info("peername")[1]
        return port

    async def messages(self) -> AsyncIterator[Message]:
        """The questions and events, until the link ends."""
        async for each in self:
            message = Message.read(each.data)
            if message.kind == "hello":
                self.hello = message.document
                await self.says("hello", "0", body=b'{"configDigests":true}')
            elif message.kind == "ping":
                await self.says("pong", message.id)
            else:
                yield message

    async def says(self, kind: str, ident: str, *words: object, body: bytes = b"") -> None:
        head = " ".join((kind, ident, *map(str, words)))
        await self.send_frame(head.encode() + b"\n" + body, WSMsgType.TEXT)

    async def answer(self, message: Message, response: web.Response) -> None:
        """Answers a question, or says that an event was taken."""
        kind = "taken" if message.kind == "event" else "answer"
        body = response.body if isinstance(response.body, bytes) else b""
        config = response.config if isinstance(response, Joined) else None
        if config is None:
            await self.says(kind, message.id, response.status, body=body)
        else:
            settings, status = config.body if isinstance(config.body, bytes) else b"", config.status
            if hashlib.sha256(settings).hexdigest()[:32] in message.words:
                settings, status = b"", 304
            await self.says(kind, message.id, response.status, status, len(body), body=body + settings)

    def cut(self) -> None:
        """Ends it without a word."""
        if self.request.transport is not None:
            self.request.transport.abort()
