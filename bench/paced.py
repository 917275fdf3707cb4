"""Questions at a fixed rate, whether or not the peer keeps up. Each latency counts from the instant at which the
question was due, so a peer that falls behind cannot slow down those who ask. It blocks, as link.py does.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from bench.asking import request_of
from bench.backend import PREFIX
from bench.link import Link
from bench.sample import WentWrong

CONNECTIONS = 32
MOST_ON_A_LINK = 1000
"""As the module; what is more waits here."""

KEEPS_UP = 0.1
"""Seconds after the last question is due within which all answers are there, if the peer keeps up; and as a share of
the whole time, for long runs."""


class Way(Protocol):
    """How questions get to a peer; they have numbers."""

    def ask(self, number: int) -> None:
        """Send a question, or keep it until it can be sent."""
        ...

    def waits_on(self) -> Sequence[socket.socket]:
        """The connections on which answers are due."""
        ...

    def take(self, readable: Sequence[socket.socket]) -> list[int]:
        """The numbers of the questions that are answered now."""
        ...

    def close(self) -> None:
        """End all connections."""
        ...


class Pace(NamedTuple):
    """`latencies` in seconds, sorted. `busy` is the share of the time in which those who ask had the CPU."""

    latencies: list[float]
    busy: float
    keeps_up: bool


def paced(way: Way, rate: float, seconds: float) -> Pace:
    """Ask `rate` times a second."""
    total, asked, latencies = int(rate * seconds), 0, list[float]()
    cpu, begun = time.process_time(), time.perf_counter()
    end = begun + seconds * (1 + KEEPS_UP) + KEEPS_UP
    while len(latencies) < total and (now := time.perf_counter()) < end:
        due = min(total, int((now - begun) * rate) + 1)
        while asked < due:
            way.ask(asked)
            asked += 1
        wait = begun + asked / rate - time.perf_counter() if asked < total else end - now
        readable = select.select(way.waits_on(), (), (), max(0.0, wait))[0]
        if readable:
            numbers, now = way.take(readable), time.perf_counter()
            latencies += [now - begun - number / rate for number in numbers]
    busy = (time.process_time() - cpu) / (time.perf_counter() - begun)
    return Pace(sorted(latencies), busy, len(latencies) == total)


class Kept:
    """HTTP on kept connections, one request at a time on each."""

    def __init__(self, port: int, questions: Sequence[dict[str, object]]) -> None:
        """Connect."""
        path = f"{PREFIX}/validate-access"
        self._requests = [request_of(path, each).replace(b"Connection: close\r\n", b"") for each in questions]
        self._free = deque(_connected(port) for _ in range(CONNECTIONS))  # in turn, or a peer closes those that rest
        self._busy: dict[socket.socket, int] = {}
        self._received: dict[socket.socket, bytes] = {}
        self._later: deque[int] = deque()

    def ask(self, number: int) -> None:
        """On a free connection."""
        if not self._free:
            self._later.append(number)
            return
        connection = self._free.popleft()
        connection.sendall(self._requests[number % len(self._requests)])
        self._busy[connection] = number

    def waits_on(self) -> Sequence[socket.socket]:
        """Those with a request."""
        return list(self._busy)

    def take(self, readable: Sequence[socket.socket]) -> list[int]:
        """What is complete."""
        numbers = []
        for connection in readable:
            content = connection.recv(65536)
            received = self._received.pop(connection, b"") + content
            if not content:
                raise WentWrong(f"a kept connection was closed after {received[:200]!r}")
            if is_complete(received):
                numbers.append(self._busy.pop(connection))
                self._free.append(connection)
            else:
                self._received[connection] = received
        while self._later and self._free:
            self.ask(self._later.popleft())
        return numbers

    def close(self) -> None:
        """All."""
        for connection in (*self._free, *self._busy):
            connection.close()


class Linked:
    """One link."""

    def __init__(self, port: int, bodies: Sequence[bytes]) -> None:
        """Connect."""
        self._link = Link(port)
        self._bodies = bodies
        self._under_way = 0
        self._later: deque[int] = deque()

    def ask(self, number: int) -> None:
        """At once, as long as there are not too many under way."""
        if self._under_way >= MOST_ON_A_LINK:
            self._later.append(number)
            return
        self._under_way += 1
        self._link.ask(number, self._bodies[number % len(self._bodies)])

    def waits_on(self) -> Sequence[socket.socket]:
        """The link."""
        return [self._link.socket]

    def take(self, readable: Sequence[socket.socket]) -> list[int]:
        """What is complete."""
        numbers = [int(answer.ident) for answer in self._link.answers()]
        self._under_way -= len(numbers)
        while self._later and self._under_way < MOST_ON_A_LINK:
            self.ask(self._later.popleft())
        return numbers

    def close(self) -> None:
        """It."""
        self._link.close()


def is_complete(response: bytes) -> bool:
    """Whether this is all of a response; raises WentWrong if it is not 200."""
    head, end, body = response.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(b"HTTP/1.1 200"):
        raise WentWrong(f"not all answers were 200: {response[:300]!r}")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return body.endswith(b"0\r\n\r\n")
    length = lower.partition(b"content-length:")[2].partition(b"\r\n")[0]
    return len(body) >= int(length)


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
