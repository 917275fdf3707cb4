"""Part `herd`: a meeting begins. Everybody asks at one instant, on a connection each: may I come in, and then, how is
the room set up? The backend takes its time.

Guests share an answer where the proxy can tell that they may; for users with names each answer is their own.
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
    """The empty server shows what the client itself needs."""
    for number in range(rounds):
        for case, guests in CASES.items():
            for who in (DIRECT, EMPTY, *PROXIES):
                say(f"herd, round {number + 1}, {case}: {who}")
                for figure, value in (await met(who, guests=guests)).items():
                    yield Sample("herd", case, who, figure, value, number)


async def met(who: str, *, guests: bool) -> dict[str, float]:
    """All figures of one meeting, in a process that has remembered nothing yet."""
    async with at_a_place(fresh=FRESH, latency=LATENCY) as place, behind(place) as backend, PEERS[who](place) as server:
        counting = server.port if who == DIRECT else backend.port
        with on_core(CLIENT_CORE):
            begun = time.perf_counter()
            everybody = all_at_once(server.port, [errand(number, guests) for number in range(USERS)])
            last = time.perf_counter() - begun
        counted = {} if who == EMPTY else (await ask(counting, "/counts")).document
    decided = sorted(replies[0].seconds for replies in everybody)
    figures = {
        "last in s": last,
        "decided p50 ms": decided[USERS // 2] * 1e3,
        "decided p99 ms": decided[USERS * 99 // 100] * 1e3,
        "refused": sum(not is_in(replies) for replies in everybody),
    }
    if counted:
        figures["backend calls at once"] = counted["most_at_once"]
        figures |= {f"{name} at the backend": calls for name, calls in sorted(counted["calls"].items())}
    return figures


def errand(number: int, guest: bool) -> list[tuple[str, dict[str, Any]]]:
    """What the module asks for one who wants in: the second only if the first was answered."""
    return [
        (f"{PREFIX}/validate-access", question(ROOM, f"user-{number}", guest=guest)),
        (f"{PREFIX}/room-created", announcement(ROOM)),
    ]


def is_in(replies: Sequence[Reply]) -> bool:
    """Whether somebody got a yes and a room."""
    return replies[0].allowed is True and replies[-1].status == 200 and len(replies) == 2
