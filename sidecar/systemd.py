"""A word to systemd, where it listens (sd_notify)."""

from __future__ import annotations

import socket


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
