"""The module's requests, sent as Prosody 0.12 sends HTTP: a connection for every request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANSWER_WITHIN = 20.0


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer; status 0 if there was none."""

    status: int
    head: str
    body: bytes
    seconds: float
    at: float = 0.0
    """When it was complete, by time.perf_counter()."""

    @property
    def document(self) -> dict[str, Any]:
        """The body's object; an empty one if there is none."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def allowed(self) -> object:
        """The decision, if this is one."""
        return self.document.get("allowed") if self.status == 200 else None


def question(room: str, user: str, *, guest: bool = False) -> dict[str, Any]:
    """May this user join? As the module asks, but always with the same timestamp: see peers/varnish.vcl."""
    return {
        "roomName": room,
        "roomJid": f"{room}@conference.example.com",
        "userJid": f"{user}@example.com",
        "userName": f"{user} Doe",
        "guest": guest,
        "timestamp": 1_700_000_000,
    }


def announcement(room: str) -> dict[str, Any]:
    """How is this room configured?"""
    return {"roomName": room, "roomJid": f"{room}@conference.example.com", "timestamp": 1_700_000_000}


async def ask(port: int, path: str, body: Mapping[str, Any] | None = None) -> Reply:
    """One request on its own connection; without a body, a GET."""
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            head, content = await _exchange(port, request_of(path, body))
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return Reply(0, "", b"", time.perf_counter() - begun)
    return Reply(int(head.split(" ", 2)[1]), head, content, time.perf_counter() - begun)


def request_of(path: str, body: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of the request."""
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def _exchange(port: int, request: bytes) -> tuple[str, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        received = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        if "transfer-encoding: chunked" in received.lower():
            return received, await _read_chunks(reader)
        return received, await reader.read()
    finally:
        writer.close()


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    content = b""
    while size := int(await reader.readline(), 16):
        content += (await reader.readexactly(size + 2))[:-2]
    return content
