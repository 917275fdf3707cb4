"""Part `cost`: CPU and memory of a peer that has answered a few requests and gets none now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from bench.asking import ask, question
from bench.backend import PREFIX
from bench.peers import EMPTY, PEERS, PROXIES, at_a_place, behind
from bench.sample import Sample

ASKED = 100
SETTLED = 1.0


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Sample]:
    """Each peer."""
    for number in range(rounds):
        for who in (EMPTY, *PROXIES):
            say(f"cost, round {number + 1}: {who}")
            for figure, value in (await idle(who, 1.5 if quick else 4.0)).items():
                yield Sample("cost", "idle", who, figure, value, number)


async def idle(who: str, seconds: float) -> dict[str, float]:
    """What it uses without requests; in PSS, a page shared by several of its processes is counted once."""
    async with at_a_place() as place, behind(place), PEERS[who](place) as server:
        for number in range(ASKED):
            await ask(server.port, f"{PREFIX}/validate-access", question("standup", f"user-{number}"))
        await asyncio.sleep(SETTLED)
        before = server.cpu_seconds()
        await asyncio.sleep(seconds)
        used = server.cpu_seconds() - before
        return {
            "CPU ms/s": used / seconds * 1e3,
            "RSS MB": server.resident() / 1e6,
            "PSS MB": server.proportional() / 1e6,
        }
