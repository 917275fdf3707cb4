"""Part `answering`: cached decisions, as many a second as one core can give.

Everything is fresh, so no backend is asked, except by "backend direct", which is the backend. The server has one core
and those who ask the other. On a shared machine, requests a second vary with the load of others; CPU time per request
does not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bench.asking import ask, question
from bench.backend import PREFIX
from bench.link import press_link
from bench.load import AT_ONCE, Connections, Crowd, Figures, press
from bench.peers import DIRECT, EMPTY, LINK, LISTENER, NGINX, OURS, QUIET, VARNISH, AtWork, Server, at_work
from bench.sample import Measured, Sample, WentWrong, tried

ROWS = (EMPTY, LISTENER, OURS, QUIET, LINK, NGINX, VARNISH, DIRECT)
MODES: dict[Connections, str] = {"close": "a connection each", "keep": "connections kept"}
USERS, IN_A_ROOM = 1_000, 10
CROWD = Crowd(question("room-%ROOM%", "user-%USER%"), USERS, IN_A_ROOM)
QUESTIONS = [question(f"room-{user // IN_A_ROOM}", f"user-{user}") for user in range(USERS)]
BODIES = [json.dumps(each).encode() for each in QUESTIONS]


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """Each peer, in each mode. The link is one connection for all."""
    for number in range(rounds):
        for who in ROWS:
            say(f"answering, round {number + 1}: {who}")
            async for each in tried("answering", who, answered(who, number, 1 if quick else 2)):
                yield each


async def answered(who: str, number: int, seconds: float) -> AsyncIterator[Sample]:
    """The figures of one peer."""
    async with warm(who) as work:
        for mode, case in MODES.items():
            if (who, mode) == (LINK, "close"):
                continue
            figures = await _pressed(who, work.peer, mode, seconds)
            for figure, value in (
                ("decisions/s", figures.per_second),
                ("CPU µs each", figures.cpu * 1e6),
                ("p50 ms", figures.p50 * 1e3),
                ("p99 ms", figures.p99 * 1e3),
            ):
                yield Sample("answering", case, who, figure, value, number)
        if await _asked(work.backend):
            raise WentWrong(f"{who} asked the backend again for an answer that should be cached")


async def _pressed(who: str, peer: Server, mode: Connections, seconds: float) -> Figures:
    if who == LINK:
        return press_link(peer, BODIES, seconds)
    return await press(peer, CROWD, mode, seconds)


@asynccontextmanager
async def warm(who: str) -> AsyncIterator[AtWork]:
    """A peer that has an answer for every user."""
    async with at_work(who) as work:
        for start in range(0, USERS, AT_ONCE):
            some = QUESTIONS[start : start + AT_ONCE]
            asking = (ask(work.peer.port, f"{PREFIX}/validate-access", each) for each in some)
            for reply in await asyncio.gather(*asking):
                if reply.allowed is not True:
                    raise WentWrong(f"{reply.status} {reply.body!r}")
        if await _asked(work.backend) != (0 if who in (EMPTY, LISTENER, DIRECT) else USERS):
            raise WentWrong(f"{who} did not ask the backend exactly once about each user")
        yield work


async def _asked(backend: Server) -> int:
    """How often the backend was asked since the last call of this."""
    calls = (await ask(backend.port, "/counts")).document["calls"]
    return sum(calls.values())
