"""Many users who ask at the same time, each on an own connection, with very little work for the client.

Written with epoll: a thousand coroutines of a library would need more time than what is measured here.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.asking import Reply, request_of

GIVE_UP_AFTER = 20.0


@dataclass(slots=True)
class Person:
    """Sends one request after the other; stops after an answer that is not 200."""

    requests: Sequence[bytes]
    replies: list[Reply] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    begun: float = 0.0

    def take_reply(self, now: float) -> bool:
        """Adds an answer; returns whether there is another request."""
        head, _, body = bytes(self.received).partition(b"\r\n\r\n")
        words = head.split(b" ", 2)
        status = int(words[1]) if len(words) > 2 else 0
        self.replies.append(Reply(status, head.decode("latin-1"), body, now - self.begun, now))
        self.received.clear()
        return status == 200 and len(self.replies) < len(self.requests)


def all_at_once(port: int, errands: Iterable[Sequence[tuple[str, Mapping[str, Any]]]]) -> list[list[Reply]]:
    """The replies to all users. An errand is a list of paths and bodies, sent in this order."""
    people = [Person([request_of(path, body) for path, body in errand]) for errand in errands]
    asking: dict[int, tuple[socket.socket, Person]] = {}
    with select.epoll() as epoll:
        for person in people:
            _connect(epoll, asking, port, person)
        give_up_at = time.perf_counter() + GIVE_UP_AFTER
        while asking and time.perf_counter() < give_up_at:
            for descriptor, events in epoll.poll(1.0):
                connection, person = asking[descriptor]
                if events == select.EPOLLOUT:
                    connection.send(person.requests[len(person.replies)])  # small: it fits into the socket's buffer
                    epoll.modify(descriptor, select.EPOLLIN)
                elif not _receive(connection, person):
                    del asking[descriptor]
                    connection.close()
                    if person.take_reply(time.perf_counter()):
                        _connect(epoll, asking, port, person)
    for connection, person in asking.values():
        connection.close()
        person.received.clear()
        person.take_reply(time.perf_counter())
    return [person.replies for person in people]


def _connect(epoll: select.epoll, asking: dict[int, tuple[socket.socket, Person]], port: int, person: Person) -> None:
    connection = socket.socket()
    connection.setblocking(False)
    person.begun = time.perf_counter()
    connection.connect_ex(("127.0.0.1", port))
    asking[connection.fileno()] = connection, person
    epoll.register(connection, select.EPOLLOUT)


def _receive(connection: socket.socket, person: Person) -> bool:
    """Read what has arrived; False at the end."""
    try:
        content = connection.recv(65536)
    except OSError:
        return False
    person.received += content
    return bool(content)
