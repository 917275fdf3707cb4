"""Loopback addresses: those that only this machine can reach."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Whether this address, or the address of this name, can be reached only from this machine."""
    if host is None or host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
