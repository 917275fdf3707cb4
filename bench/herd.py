"""Part `herd`: a meeting begins. All users ask at the same instant for the decision and for the room config.

Over HTTP each user is a connection, and asks for the config after the decision. Over the link there is one connection,
and both are one question. Guests share an answer, if the proxy supports that; each user with a name needs an own one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from bench.asking import Reply, announcement, ask, question
from bench.backend import PREFIX
from bench.crowd import all_at_once
from bench.link import all_at_once_on_link
from bench.peers import DIRECT, EMPTY, LINK, NGINX, OURS, VARNISH, at_work
from bench.program import CLIENT_CORE, on_core
from bench.sample import Measured, Sample, WentWrong, tried

USERS = 1_000
FRESH = 15
ROOM = "all-hands"
ROWS = (NGINX, OURS, LINK, VARNISH, DIRECT, EMPTY)


class Meeting(NamedTuple):
    """Who comes, what the backend can do, and who is measured. A capacity of 0 is any number."""

    guests: bool
    latency: float
    capacity: int
    rows: Sequence[str]


CASES = {
    "guests": Meeting(True, 0.2, 0, (NGINX, OURS, LINK, DIRECT)),
    "users with names": Meeting(False, 0.2, 0, ROWS),
    "users with names, the backend works on 100 at a time": Meeting(False, 0.2, 100, (NGINX, OURS, LINK, DIRECT)),
}


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """The empty server shows the time that the client itself needs. Quick: the last case only."""
    for number in range(rounds):
        for case, meeting in list(CASES.items())[-1 if quick else 0 :]:
            for who in meeting.rows:
                say(f"herd, round {number + 1}, {case}: {who}")
                async for each in tried("herd", who, met(case, meeting, who, number)):
                    yield each


async def met(case: str, meeting: Meeting, who: str, number: int) -> AsyncIterator[Sample]:
    """All figures of one meeting, in a process with an empty cache."""
    asked = [question(ROOM, f"user-{user}", guest=meeting.guests) for user in range(USERS)]
    async with at_work(who, fresh=FRESH, latency=meeting.latency, capacity=meeting.capacity) as work:
        with on_core(CLIENT_CORE):
            users = came_over_link(work.peer.port, asked) if who == LINK else came(work.peer.port, asked)
        counting = work.peer if who == DIRECT else work.backend
        counted = {} if who == EMPTY else (await ask(counting.port, "/counts")).document
    if not users:
        raise WentWrong("all users were refused")
    first, last = sorted(decided for decided, _ in users), max(complete for _, complete in users)
    figures = {
        "last in s": last,
        "decision p50 ms": first[len(first) // 2] * 1e3,
        "decision p99 ms": first[len(first) * 99 // 100] * 1e3,
        "refused": USERS - len(users),
    }
    if counted:
        figures["backend calls at once"] = counted["most_at_once"]
        figures |= {f"{name} at the backend": calls for name, calls in sorted(counted["calls"].items())}
    for figure, value in figures.items():
        yield Sample("herd", case, who, figure, value, number)


def came(port: int, asked: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Seconds until the decision and until the config of each user who got both; each on own connections."""
    begun = time.perf_counter()
    everybody = all_at_once(port, [_errand(each) for each in asked])
    return [(replies[0].seconds, replies[-1].at - begun) for replies in everybody if is_in(replies)]


def came_over_link(port: int, asked: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """The same, over one link."""
    return all_at_once_on_link(port, asked, announcement(ROOM))


def _errand(asked: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{PREFIX}/validate-access", asked), (f"{PREFIX}/room-created", announcement(ROOM))]


def is_in(replies: Sequence[Reply]) -> bool:
    """Whether a user got an allow and a room config."""
    return len(replies) == 2 and replies[0].allowed is True and replies[-1].status == 200
