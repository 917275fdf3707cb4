"""The only file that reads a clock."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any, Protocol


class Clock(Protocol):
    """Two clocks: one to measure ages, one for dates."""

    def monotonic(self) -> float:
        """Seconds that never go back, that count while the machine is suspended, and that nobody can set."""
        ...

    def wall(self) -> float:
        """Unix seconds; may jump."""
        ...


class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME and not CLOCK_MONOTONIC: an allow must not live longer because the machine
    was suspended."""

    def monotonic(self) -> float:
        """Seconds since boot, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()


def until_next(period: float, now: float) -> float:
    """Seconds until the next multiple of a period. What is due in every period is then due at the same instant, and an
    idle process wakes up once for all of it."""
    return period - now % period


_LAST_RECEIVED = struct.Struct("=52xI")
"""`tcpi_last_data_recv` in Linux's `struct tcp_info`."""


def unread_for(transport: Any) -> float:
    """Seconds since the kernel received the last bytes on a TCP connection, to some milliseconds; 0 if it does not say.

    A process that is overloaded, stopped or swapped out reads them long after they have arrived.
    """
    connection: Any = transport.get_extra_info("socket") if transport is not None else None
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_RECEIVED.size)
        (milliseconds,) = _LAST_RECEIVED.unpack(info)
    except (AttributeError, OSError, struct.error):  # no socket, a closed one, or none of TCP
        return 0.0
    return float(milliseconds / 1e3)
