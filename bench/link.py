"""A module's end of the link, with as little work as possible: questions go out as they are, and of an answer only the
header is read. It blocks; while it is used, the event loop of this process stands still.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

from bench.backend import PREFIX
from bench.load import AT_ONCE, Figures
from bench.peers import Server
from bench.program import CLIENT_CORE, on_core
from bench.sample import WentWrong

PROTOCOL = "prosody-sidecar.v1"
HELLO = {"version": "0.2.0", "host": "conference.example.com", "boot": "1-1"}
WITHIN = 10.0
TEXT = 1


class Answer(NamedTuple):
    """The header of an answer, and what comes after it."""

    ident: str
    words: list[str]
    """The status; then, if a config came too, its status and the length of the decision before it."""
    body: bytes


class Link:
    """One link, until `close`."""

    def __init__(self, port: int) -> None:
        """Connect, shake hands, say hello. Raises WentWrong if the sidecar does not take part."""
        self.socket = socket.create_connection(("127.0.0.1", port), WITHIN)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        head = (
            f"GET {PREFIX}/link HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n"
            f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        while b"\r\n\r\n" not in self._received:
            self._receive()
        answer, _, self._received = self._received.partition(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise WentWrong(f"no link: {answer[:200]!r}")
        self.socket.sendall(frame(b"hello 0\n" + json.dumps(HELLO).encode()))
        while not (messages := self.read()):
            pass
        if messages[0].partition(b" ")[0] != b"hello":
            raise WentWrong(f"no hello: {messages[0][:200]!r}")

    def ask(self, ident: object, body: bytes, what: str = "join") -> None:
        """Send a question."""
        self.socket.sendall(frame(f"ask {ident} {what}\n".encode() + body))

    def answers(self) -> list[Answer]:
        """At least one that has come, or none if only something else has come."""
        return [found for each in self.read() if (found := _answer(each)) is not None]

    def read(self) -> list[bytes]:
        """The messages that are complete after one more read."""
        self._receive()
        data, at, messages = self._received, 0, []
        while len(data) >= at + 2:
            begins, length = at + 2, data[at + 1]
            if length >= 126:
                width = 2 if length == 126 else 8
                begins += width
                length = int.from_bytes(data[at + 2 : begins], "big")
            if len(data) < begins + length or begins > len(data):
                break
            if data[at] != 0x80 | TEXT:
                raise WentWrong(f"not a text message, but {data[at]:#x}: {data[begins : begins + length]!r}")
            messages.append(data[begins : begins + length])
            at = begins + length
        self._received = data[at:]
        return messages

    def close(self) -> None:
        """End it at once."""
        self.socket.close()

    def _receive(self) -> None:
        content = self.socket.recv(262_144)
        if not content:
            raise WentWrong("the sidecar has closed the link")
        self._received += content


def frame(content: bytes) -> bytes:
    """A text message of a client. Its mask is zero, which the content does not change."""
    length = len(content)
    if length < 126:
        return struct.pack(">BBxxxx", 0x80 | TEXT, 0x80 | length) + content
    return struct.pack(">BBHxxxx", 0x80 | TEXT, 0x80 | 126, length) + content


def _answer(message: bytes) -> Answer | None:
    head, _, body = message.partition(b"\n")
    kind, ident, *words = head.decode().split(" ")
    if kind != "answer":
        return None
    if words[0] != "200":
        raise WentWrong(f"not all answers were 200: {message[:300]!r}")
    return Answer(ident, words, body)


def press_link(server: Server, bodies: Sequence[bytes], seconds: float, at_once: int = AT_ONCE) -> Figures:
    """Ask for this time, with so many questions under way."""
    with on_core(CLIENT_CORE):
        link = Link(server.port)
        try:
            before = server.cpu_seconds()
            times, took = _pressed(link, bodies, seconds, at_once)
            used = server.cpu_seconds() - before
        finally:
            link.close()
    times.sort()
    count = len(times)
    return Figures(count / took, used / count, times[count // 2], times[count * 99 // 100], times[-1])


def _pressed(link: Link, bodies: Sequence[bytes], seconds: float, at_once: int) -> tuple[list[float], float]:
    asked, times, sent_at = 0, list[float](), dict[str, float]()
    begun = now = time.perf_counter()
    while sent_at or now < begun + seconds:
        if now < begun + seconds:
            while len(sent_at) < at_once:
                link.ask(asked, bodies[asked % len(bodies)])
                sent_at[str(asked)] = time.perf_counter()
                asked += 1
        for answer in link.answers():
            times.append(time.perf_counter() - sent_at.pop(answer.ident))
        now = time.perf_counter()
    return times, now - begun


def all_at_once_on_link(port: int, asked: Sequence[dict[str, Any]], room: dict[str, Any]) -> list[tuple[float, float]]:
    """Sends all these questions at one instant. Seconds until the decision of each user, and until the config too (if
    it did not come with the decision, it is asked for). A user who is not let in has no pair."""
    link = Link(port)
    try:
        begun = time.perf_counter()
        for number, each in enumerate(asked):
            link.ask(number, json.dumps(each).encode(), "join config")
        decided, complete = dict[str, float](), dict[str, float]()
        under_way, give_up_at = len(asked), begun + 2 * WITHIN
        while under_way and time.perf_counter() < give_up_at:
            if not select.select([link.socket], (), (), 1.0)[0]:
                continue
            for answer in link.answers():
                now, user = time.perf_counter() - begun, answer.ident.removeprefix("config-")
                is_decision = user == answer.ident
                if is_decision and b'"allowed":true' in answer.body.replace(b" ", b""):
                    decided[user] = now
                if is_decision and len(answer.words) < 3 and user in decided:
                    link.ask(f"config-{user}", json.dumps(room).encode(), "room-created")
                    continue
                under_way -= 1
                complete[user] = now
    finally:
        link.close()
    return [(decided[user], complete[user]) for user in decided.keys() & complete.keys()]
