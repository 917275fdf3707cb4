"""Part `herd`: a meeting begins. All users ask at the same time, each on an own connection: first for the decision,
then for the room config. The backend is slow.

Guests share an answer, if the proxy supports that; each user with a name needs an own answer.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from bench.asking import Reply, announcement, ask, question
from bench.backend import PREFIX
from bench.crowd import all_at_once
from bench.peers import DIRECT, EMPTY, PEERS, PROXIES, at_a_place, behind
from bench.program import CLIENT_CORE, on_core
from bench.sample import Sample

USERS = 1_000
LATENCY = 0.2
FRESH = 15
ROOM = "all-hands"
CASES = {"guests": True, "users with names": False}


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Sample]:
    """The empty server shows the time that the client itself needs."""
    for number in range(rounds):
        for case, guests in CASES.items():
            for who in (DIRECT, EMPTY, *PROXIES):
                say(f"herd, round {number + 1}, {case}: {who}")
                for figure, value in (await met(who, guests=guests)).items():
                    yield Sample("herd", case, who, figure, value, number)


async def met(who: str, *, guests: bool) -> dict[str, float]:
    """All figures of one meeting, in a process with an empty cache."""
    peer = PEERS[who]
    errands = [errand(question(ROOM, f"user-{number}", guest=guests)) for number in range(USERS)]
    async with at_a_place(fresh=FRESH, latency=LATENCY) as place, behind(place) as backend, peer(place) as server:
        counting = server.port if who == DIRECT else backend.port
        with on_core(CLIENT_CORE):
            begun = time.perf_counter()
            everybody = all_at_once(server.port, errands)
            last = time.perf_counter() - begun
        counted = {} if who == EMPTY else (await ask(counting, "/counts")).document
    first = sorted(replies[0].seconds for replies in everybody)
    figures = {
        "last in s": last,
        "first answer p50 ms": first[USERS // 2] * 1e3,
        "first answer p99 ms": first[USERS * 99 // 100] * 1e3,
        "refused": sum(not is_in(replies) for replies in everybody),
    }
    if counted:
        figures["backend calls at once"] = counted["most_at_once"]
        figures |= {f"{name} at the backend": calls for name, calls in sorted(counted["calls"].items())}
    return figures


def errand(asked: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The module's requests for one join over HTTP; the second only after an answer to the first."""
    return [(f"{PREFIX}/validate-access", asked), (f"{PREFIX}/room-created", announcement(ROOM))]


def is_in(replies: Sequence[Reply]) -> bool:
    """Whether a user got an allow and a room config."""
    return len(replies) == 2 and replies[0].allowed is True and replies[-1].status == 200
