"""A module that carries out orders, at the other end of a real link."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.rig.link import HELLO, Link, Message
from tests.rig.sidecar import Sidecar

PING_EVERY = 5.0
"""Seconds; a link that is silent is given up."""


class Module:
    """Carries out each id once, as the module in Prosody does; it outlives its links."""

    def __init__(self, outcome: Mapping[str, Any]) -> None:
        self.outcome = outcome
        self.received: list[str] = []
        self.carried_out: list[str] = []
        self.orders: list[Any] = []
        self.silent = False

    @asynccontextmanager
    async def linked(
        self, sidecar: Sidecar, boot: str = "1-1", host: str = "conference.example.com"
    ) -> AsyncIterator[Link]:
        async with Link.open(sidecar.webhooks, {**HELLO, "boot": boot, "host": host}, sidecar.token) as link:
            serving = asyncio.ensure_future(self._serve(link))
            try:
                yield link
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    async def _serve(self, link: Link) -> None:
        done, pinged_at = 0, time.monotonic()
        while True:
            if time.monotonic() - pinged_at > PING_EVERY:
                pinged_at = time.monotonic()
                await link.says("ping", "p")
            while done < len(link.seen):
                message = link.seen[done]
                done += 1
                if message.kind == "order":
                    await self._carry_out(link, message)
            await asyncio.sleep(0.002)

    async def _carry_out(self, link: Link, message: Message) -> None:
        self.received.append(message.id)
        if message.id not in self.carried_out:
            self.carried_out.append(message.id)
            self.orders.append(message.document)
        if not self.silent:
            await link.says("done", message.id, body=json.dumps(self.outcome).encode())

    async def until(self, received: int) -> None:
        async with asyncio.timeout(10):
            while len(self.received) < received:
                await asyncio.sleep(0.005)
