"""Part `answering`: cached decisions, as many a second as one core can give.

Everything is fresh, so no backend is asked, except by "backend direct", which is the backend. The server has one core
and wrk the other. On a shared machine, requests a second vary with the load of others; CPU time per request does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from bench.asking import ask, question
from bench.backend import PREFIX
from bench.load import AT_ONCE, Connections, Crowd, Figures, press
from bench.peers import DIRECT, EMPTY, PEERS, Server, at_a_place, behind
from bench.program import WentWrong
from bench.sample import Sample

MODES: dict[Connections, str] = {"close": "a connection each", "keep": "connections kept"}
USERS, IN_A_ROOM = 1_000, 10
CROWD = Crowd(question("room-%ROOM%", "user-%USER%"), USERS, IN_A_ROOM)


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Sample]:
    """Each peer, in each mode."""
    for number in range(rounds):
        for who in PEERS:
            say(f"answering, round {number + 1}: {who}")
            async for mode, figures in pressed(who, 1 if quick else 2):
                for figure, value in (
                    ("decisions/s", figures.per_second),
                    ("CPU µs each", figures.cpu * 1e6),
                    ("p50 ms", figures.p50 * 1e3),
                    ("p99 ms", figures.p99 * 1e3),
                ):
                    yield Sample("answering", MODES[mode], who, figure, value, number)


async def pressed(who: str, seconds: float) -> AsyncIterator[tuple[Connections, Figures]]:
    """A peer with an answer for every user, measured in each mode."""
    async with at_a_place() as place, behind(place) as backend, PEERS[who](place) as server:
        await _warm(server)
        if await _asked(backend) != (0 if who in (EMPTY, DIRECT) else USERS):
            raise WentWrong(f"{who} did not ask the backend exactly once about each user")
        for mode in MODES:
            yield mode, await press(server, CROWD, mode, seconds)
        if await _asked(backend):
            raise WentWrong(f"{who} asked the backend again for an answer that should be cached")


async def _warm(server: Server) -> None:
    questions = [question(f"room-{user // IN_A_ROOM}", f"user-{user}") for user in range(USERS)]
    for start in range(0, USERS, AT_ONCE):
        some = questions[start : start + AT_ONCE]
        for reply in await asyncio.gather(*(ask(server.port, f"{PREFIX}/validate-access", each) for each in some)):
            if reply.allowed is not True:
                raise WentWrong(f"{reply.status} {reply.body!r}")


async def _asked(backend: Server) -> int:
    """How often the backend was asked since the last call of this."""
    calls = (await ask(backend.port, "/counts")).document["calls"]
    return sum(calls.values())
