"""Limits for the sidecar over HTTP: the same Python, library and event loop, and a handler that does nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.installed import python
from bench.peers.place import Place, Server, serving


@asynccontextmanager
async def empty(place: Place) -> AsyncIterator[Server]:
    """An empty `web.Server`."""
    async with serving(place, "empty", python(), "-m", "bench.empty", str(place.port)) as server:
        yield server


@asynccontextmanager
async def listener(place: Place) -> AsyncIterator[Server]:
    """The sidecar's listener with a constant answer."""
    async with serving(place, "listener", python(), "-m", "bench.listener", str(place.port)) as server:
        yield server
