"""The upper limit for the sidecar: the same Python, library and event loop, and a handler that does nothing.

`python -m bench.peers.empty PORT` is the program.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from bench.peers.place import PYTHON, Place, Server, serving


@asynccontextmanager
async def empty(place: Place) -> AsyncIterator[Server]:
    """An empty `web.Server`."""
    async with serving(place, "empty", PYTHON, "-m", "bench.peers.empty", str(place.port)) as server:
        yield server


async def answer(_: web.BaseRequest) -> web.Response:
    """Always allow."""
    return web.Response(body=b'{"allowed":true}', content_type="application/json")


async def serve(port: int) -> None:
    """Serve until the process ends."""
    server = web.Server(answer, access_log=None)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, backlog=1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
