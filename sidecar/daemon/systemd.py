"""What systemd and the sidecar tell each other: sd_notify, the watchdog, sockets that outlive a restart."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST_SOCKET = 3
"""The number of the first file that systemd passes (sd_listen_fds(3))."""


def notify(message: str, address: str | None) -> None:
    """Send lines such as `READY=1`; `address` is $NOTIFY_SOCKET, None where nobody listens."""
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(message.encode(), address)
    except OSError:
        return  # a supervisor that has gone away is no reason to stop serving


def watchdog_seconds(environ: Mapping[str, str], pid: int | None = None) -> float | None:
    """Seconds within which systemd wants to hear `WATCHDOG=1`; None when it does not wait for it."""
    text = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(pid or os.getpid()))
    if not text.isdigit() or int(text) == 0 or meant != str(pid or os.getpid()):
        return None
    return int(text) / 1e6


def passed_sockets(environ: Mapping[str, str], pid: int | None = None) -> dict[str, socket.socket]:
    """The listening sockets systemd opened for us, by their FileDescriptorName=."""
    if environ.get("LISTEN_PID") != str(pid or os.getpid()):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    sockets = {}
    for offset in range(int(environ.get("LISTEN_FDS", "0"))):
        number = FIRST_SOCKET + offset
        os.set_inheritable(number, False)
        passed = socket.socket(fileno=number)
        passed.setblocking(False)
        sockets[names[offset] if offset < len(names) else "unknown"] = passed
    return sockets
