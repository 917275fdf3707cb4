"""Free ports of 127.0.0.1, and who listens on them."""

from __future__ import annotations

import contextlib
import random
import socket

_chance = random.SystemRandom()


def free_port() -> int:
    """A port nobody listens on just now, below those from which the system takes the ports of outgoing connections:
    of these one may be taken at any moment."""
    while True:
        port = _chance.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def free_ports(count: int) -> list[int]:
    """So many of them, each another one."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


def is_listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
