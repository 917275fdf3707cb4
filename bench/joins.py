"""Part `joins`: what a join costs in real Prosody. All users are connected before; leaving is not measured.

`warm`: the rooms were joined before, so a sidecar has cached answers. `cold`: the rooms are new. Each round measures
all ways in turn, so that other load on the machine affects all of them.

The collector of Lua makes the CPU of a join vary: table `cost` has the joins while it stands still, and the kilobytes
that a join needs for a short time, which are what makes it run.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from bench.prosodys import ALONE, BARE, NGINX, SIDECAR, WAYS, Way, ways
from bench.sample import Measured, Sample, tried
from bench.users import Run, join_all, leave_all
from tests.rig.prosody import VERSIONS

SIZES = (1, 10)
MEMBERS = f"{SIDECAR}, rooms that are not public"
STATES = {"warm": WAYS, "cold": (BARE, SIDECAR, ALONE, NGINX)}
"""The floor remembers nothing, so it is never cold."""
USERS = 100
JOINS = 200
AT_ONCE = 16

_numbers = itertools.count(1)


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """All cases."""
    versions, joins = (VERSIONS[:1], 50) if quick else (VERSIONS, JOINS)
    for version in versions:
        say(f"joins: the Prosodys {version} start")
        async with ways("joins", version, WAYS, USERS) as (ready, failures):
            for missing in failures:
                yield missing
            for number in range(rounds):
                turn = ready[number % len(ready) :] + ready[: number % len(ready)] if ready else []
                for size, (state, wanted), way in itertools.product(SIZES, STATES.items(), turn):
                    if way.who not in wanted:
                        continue
                    case = f"{version}, rooms of {size}, {state}"
                    say(f"joins, round {number + 1}: {case}, {way.who}")
                    run = Run(size, joins, AT_ONCE, f"r{next(_numbers)}")
                    async for each in tried("joins", way.who, joined(case, way, run, number, warm=state == "warm")):
                        yield each


async def joined(case: str, way: Way, run: Run, number: int, *, warm: bool) -> AsyncIterator[Sample]:
    """The figures of one way."""
    first = run if warm else Run(run.size, run.joins // 4, run.at_once, run.name + "-others")
    await join_all(way.server, way.users, first)
    await leave_all(way.server, way.users, first)
    for figure, value in (await timed(way, run)).items():
        yield Sample("joins", case, way.who, figure, value, number)
    if warm:
        for figure, value in (await counted(way, run)).items():
            yield Sample("cost", case, way.who, figure, value, number)
    if warm and way.who == SIDECAR:
        members = replace(run, name=f"members-{run.name}")
        await join_all(way.server, way.users, members)
        await leave_all(way.server, way.users, members)
        for figure, value in (await counted(way, members)).items():
            yield Sample("cost", case, MEMBERS, figure, value, number)


async def timed(way: Way, run: Run) -> dict[str, float]:
    """With the collector as it is by default. The two last figures say which core was the limit."""
    await way.server.lua("collectgarbage()")
    cpu, others, begun = way.cpu(), way.around.cpu(), time.perf_counter()
    times = await join_all(way.server, way.users, run)
    took = time.perf_counter() - begun
    cpu, others = way.cpu() - cpu, way.around.cpu() - others
    await leave_all(way.server, way.users, run)
    return {
        "joins/s": run.joins / took,
        "p50 ms": times[len(times) // 2] * 1e3,
        "p99 ms": times[len(times) * 99 // 100] * 1e3,
        "CPU µs a join": cpu / run.joins * 1e6,
        "Prosody's core busy %": cpu / took * 100,
        "other core busy %": others / took * 100,
    }


async def counted(way: Way, run: Run) -> dict[str, float]:
    """With the collector stopped. The kilobytes are without those of the question for them."""
    count = 'return collectgarbage("count")'
    first = await way.server.lua(f'collectgarbage(); collectgarbage(); collectgarbage("stop"); {count}')
    try:
        before = await way.server.lua(count)
        cpu = way.cpu()
        await join_all(way.server, way.users, run)
        cpu = way.cpu() - cpu
        kilobytes = await way.server.lua(count) - before - (before - first)
    finally:
        await way.server.lua('collectgarbage("restart")')
    await leave_all(way.server, way.users, run)
    return {"KB a join": kilobytes / run.joins, "CPU µs a join": cpu / run.joins * 1e6}
