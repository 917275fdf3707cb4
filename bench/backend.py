"""`python -m bench.backend PORT [--latency SECONDS] [--capacity N] [--secret SECRET]`: a meeting service that counts.

POST /webhooks/jitsi/<endpoint> answers after the latency. GET /counts returns the calls of each endpoint and the most
calls at the same time, and resets the counts.

It is not the backend of the tests (tests/rig/backend.py): that one records every request and runs in the process that
asks, and both would be measured too. This one is a process of its own, and does little for a request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter

from aiohttp import web

from sidecar.demo_backend.rooms import DEFAULT_CONFIG

PREFIX = "/webhooks/jitsi"
SECRET = "a-secret-for-the-benchmark"
BACKLOG = 4096


class Backend:
    """Answers and counts. Joins into rooms whose name begins with `cancelled` are denied."""

    def __init__(self, latency: float, capacity: int, secret: str) -> None:
        """`latency`: seconds of work for every answer. `capacity`: how many requests are worked on at the same time,
        the others wait; 0: any number. An empty secret: no secret is required."""
        self._latency = latency
        self._places = asyncio.Semaphore(capacity or 1_000_000)
        self._secret = secret
        self._calls: Counter[str] = Counter()
        self._under_way = 0
        self._most = 0

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answer one request."""
        if request.method == "GET":
            return self._counts() if request.path == "/counts" else web.Response(text="well")
        endpoint = request.path.rpartition("/")[2]
        self._calls[endpoint] += 1
        self._under_way += 1
        self._most = max(self._most, self._under_way)
        try:
            async with self._places:
                await asyncio.sleep(self._latency)
            if request.headers.get("X-Webhook-Secret", "") != self._secret:
                return web.json_response({"error": "who are you?"}, status=401)
            return self._answer(endpoint, json.loads(await request.read())["roomName"])
        finally:
            self._under_way -= 1

    def _answer(self, endpoint: str, room: str) -> web.Response:
        if endpoint == "room-created":
            return web.json_response({**DEFAULT_CONFIG, "meetingTitle": room})
        if room.startswith("cancelled"):
            return web.json_response({"allowed": False, "reason": "Meeting has been cancelled"})
        return web.json_response({"allowed": True, "reason": None, "meetingTitle": room})

    def _counts(self) -> web.Response:
        counts = {"calls": dict(self._calls), "most_at_once": self._most}
        self._calls.clear()
        self._most = self._under_way
        return web.json_response(counts)


async def serve(port: int, latency: float, capacity: int, secret: str) -> None:
    """Serve until the process ends."""
    server = web.Server(Backend(latency, capacity, secret).handle, access_log=None)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, backlog=BACKLOG)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.backend", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--capacity", type=int, default=0)
    parser.add_argument("--secret", default="")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.latency, arguments.capacity, arguments.secret))
