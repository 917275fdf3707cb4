"""`python -m bench.empty PORT`: a web.Server that always allows. It imports nothing else of the benchmark, since that
would count as its memory and its time to start."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


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
