"""`python -m bench.listener PORT`: the sidecar's listener for Prosody, with an answer that is always the same.

So it has the cost of reading a request and writing an answer, and not that of a decision, its facts and its line in the
log."""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack

from aiohttp import web

from sidecar.backend.client import Target
from sidecar.clock import SystemClock
from sidecar.config.loader import parse
from sidecar.daemon.build import build
from sidecar.daemon.current import Secrets
from sidecar.daemon.lifecycle import COLLECT
from sidecar.web.hosts import Hosts
from sidecar.web.listeners import Address, listen, webhook_runner
from sidecar.web.responses import FullResponse, Writes
from sidecar.web.webhooks import Webhooks

BACKEND = "http://127.0.0.1:1/nobody"
BODY = b'{"allowed":true}'
HEAD = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
WRITES = Writes()


class Always(Webhooks):
    """Allows, whatever the question is."""

    async def handle(self, request: web.BaseRequest) -> FullResponse:
        """Answer one request."""
        return FullResponse(200, HEAD, BODY, WRITES)


async def serve(port: int) -> None:
    """Serve until the process ends."""
    clock = SystemClock()
    settings = parse(f"state_dir: null\nbackend: {{url: '{BACKEND}'}}\n", "built in")
    parts = build(settings, Secrets(Target(BACKEND)), None, clock=clock, boot="", notify=lambda _: None)
    watched = parts.connections["listen"]
    runner = webhook_runner(Always(parts.questions, Hosts(clock), clock, parts.emit), parts.links, watched, 1.0)
    async with AsyncExitStack() as stack:
        await listen(stack, runner, Address("listen", "127.0.0.1", port), {}, watched, parts.emit)
        gc.set_threshold(*COLLECT)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
