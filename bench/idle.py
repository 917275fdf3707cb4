"""Part `idle`: how long a peer takes to start, and its CPU and memory when it has answered a few requests and gets none
now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from bench.asking import ask, question
from bench.backend import PREFIX
from bench.peers import EMPTY, NGINX, OURS, VARNISH, at_work
from bench.sample import Measured, Sample, tried

ROWS = (EMPTY, OURS, NGINX, VARNISH)
ASKED = 100
SETTLED = 1.0


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """Each peer."""
    for number in range(rounds):
        for who in ROWS:
            say(f"idle, round {number + 1}: {who}")
            async for each in tried("idle", who, idle(who, number, 1.0 if quick else 2.0)):
                yield each


async def idle(who: str, number: int, seconds: float) -> AsyncIterator[Sample]:
    """What it uses without requests; in PSS, a page shared by several of its processes is counted once."""
    async with at_work(who) as work:
        for user in range(ASKED):
            await ask(work.peer.port, f"{PREFIX}/validate-access", question("standup", f"user-{user}"))
        await asyncio.sleep(SETTLED)
        before = work.peer.cpu_seconds()
        await asyncio.sleep(seconds)
        used = work.peer.cpu_seconds() - before
        figures = {
            "RSS MB": work.peer.resident() / 1e6,
            "PSS MB": work.peer.proportional() / 1e6,
            "CPU ms/s": used / seconds * 1e3,
            "answers after s": work.answers_after,
            "CPU s until then": work.cpu_before,
        }
    for figure, value in figures.items():
        yield Sample("idle", "idle", who, figure, value, number)
