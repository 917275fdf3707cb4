"""Part `herd`: a meeting begins. All users ask at the same time, each on an own connection: first for the decision,
then for the room config. The sidecar can also answer both in one request. The backend is slow.

Guests share an answer, if the proxy supports that; each user with a name needs an own answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from bench.asking import Reply, announcement, ask, question
from bench.backend import PREFIX
from bench.crowd import all_at_once
from bench.peers import DIRECT, EMPTY, OURS, PEERS, PROXIES, at_a_place, behind
from bench.program import CLIENT_CORE, on_core
from bench.sample import Sample

USERS = 1_000
LATENCY = 0.2
FRESH = 15
ROOM = "all-hands"
CASES = {"guests": True, "users with names": False}
BOTH_AT_ONCE = "sidecar, both at once"


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Sample]:
    """The empty server shows the time that the client itself needs."""
    for number in range(rounds):
        for case, guests in CASES.items():
            for who in (DIRECT, EMPTY, *PROXIES, BOTH_AT_ONCE):
                say(f"herd, round {number + 1}, {case}: {who}")
                for figure, value in (await met(who, guests=guests)).items():
                    yield Sample("herd", case, who, figure, value, number)


async def met(who: str, *, guests: bool) -> dict[str, float]:
    """All figures of one meeting, in a process with an empty cache."""
    peer = PEERS[OURS if who == BOTH_AT_ONCE else who]
    errands = [errand(who, question(ROOM, f"user-{number}", guest=guests)) for number in range(USERS)]
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
        "refused": sum(not is_in(who, replies) for replies in everybody),
    }
    if counted:
        figures["backend calls at once"] = counted["most_at_once"]
        figures |= {f"{name} at the backend": calls for name, calls in sorted(counted["calls"].items())}
    return figures


def errand(who: str, asked: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The module's requests for one join; the second only after an answer to the first."""
    if who == BOTH_AT_ONCE:
        return [(f"{PREFIX}/join?config=1", asked)]
    return [(f"{PREFIX}/validate-access", asked), (f"{PREFIX}/room-created", announcement(ROOM))]


def is_in(who: str, replies: Sequence[Reply]) -> bool:
    """Whether a user got an allow and a room config."""
    last = replies[-1]
    if who != BOTH_AT_ONCE:
        return len(replies) == 2 and replies[0].allowed is True and last.status == 200
    decision = json.loads(last.body.split(b"\x1e")[1]) if last.status == 200 else {}
    return decision.get("allowed") is True and "Config-Status: 200" in last.head
