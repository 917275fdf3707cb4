"""Part `instant`: so many users join at one instant, ten into each room, all known to whoever decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from bench.prosodys import ALONE, BARE, NGINX, SIDECAR, Way, ways
from bench.sample import Measured, Sample, tried
from bench.users import Run, join_all, leave_all
from tests.rig.prosody import VERSIONS

ROWS = (BARE, SIDECAR, ALONE, NGINX)
USERS = (10, 30, 100, 300)
ROOM = 10


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """All ways in turn."""
    version, users = VERSIONS[0], USERS[:2] if quick else USERS
    say(f"instant: the Prosodys {version} start")
    async with ways("instant", version, ROWS, max(users)) as (ready, failures):
        for missing in failures:
            yield missing
        for number in range(rounds):
            for count in users:
                for way in ready:
                    say(f"instant, round {number + 1}: {count} users, {way.who}")
                    async for each in tried("instant", way.who, joined(way, count, number)):
                        yield each


async def joined(way: Way, users: int, number: int) -> AsyncIterator[Sample]:
    """They have been there before."""
    run = Run(ROOM, users, users, f"at-once-{users}")
    await join_all(way.server, way.users, run)
    await leave_all(way.server, way.users, run)
    await way.server.lua("collectgarbage()")
    times = await join_all(way.server, way.users, run)
    await leave_all(way.server, way.users, run)
    for figure, value in (
        ("p99 ms", times[users * 99 // 100] * 1e3),
        ("p50 ms", times[users // 2] * 1e3),
        ("first ms", times[0] * 1e3),
    ):
        yield Sample("instant", f"{users} users", way.who, figure, value, number)
