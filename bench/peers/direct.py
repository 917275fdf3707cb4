"""The backend itself, with nobody in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from bench.backend import SECRET
from bench.peers.place import PYTHON, Place, Server, serving
from bench.program import CLIENT_CORE


@asynccontextmanager
async def direct(place: Place) -> AsyncIterator[Server]:
    """A backend that lets anybody ask."""
    async with serving(place, "direct", PYTHON, "-m", "bench.backend", str(place.port)) as server:
        yield server


@asynccontextmanager
async def behind(place: Place, *, latency: float = 0.0) -> AsyncIterator[Server]:
    """The backend that a peer at this place asks. It wants the secret."""
    there = replace(place, port=place.backend_port, core=CLIENT_CORE)
    options = ("--latency", str(latency), "--secret", SECRET)
    async with serving(there, "backend", PYTHON, "-m", "bench.backend", str(there.port), *options) as server:
        yield server
