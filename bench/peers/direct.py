"""The backend itself, without a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from bench.backend import SECRET
from bench.installed import python
from bench.peers.place import Place, Server, serving
from bench.program import CLIENT_CORE


@asynccontextmanager
async def direct(place: Place) -> AsyncIterator[Server]:
    """A backend without a secret."""
    async with serving(place, "direct", *_backend(place, secret="")) as server:
        yield server


@asynccontextmanager
async def behind(place: Place) -> AsyncIterator[Server]:
    """The backend for a peer at this place. It requires the secret."""
    there = replace(place, port=place.backend_port, core=CLIENT_CORE)
    async with serving(there, "backend", *_backend(there, secret=SECRET)) as server:
        yield server


def _backend(place: Place, secret: str) -> tuple[str, ...]:
    options = ("--latency", str(place.latency), "--capacity", str(place.capacity), "--secret", secret)
    return python(), "-m", "bench.backend", str(place.port), *options
