"""`make crash`: kills the sidecar with -9 again and again, at random moments and at exact points, under load.

While people join and events are posted, the meeting service comes and goes too. Nobody may ever get a wrong answer;
every event that was acknowledged must arrive, in its room's order, under the key it was accepted with; and the sidecar
must always come back. An allow that a deny has taken away must not come back by a crash.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import aiohttp
from rich.console import Console

from tests.rig.answers import allow_if, reply, taken
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

JOINERS = 4
ROOMS = 12
BACK_WITHIN = 5.0
EMPTY_WITHIN = 30.0
NOBODY = (aiohttp.ClientError, TimeoutError)
SETTINGS: dict[str, Any] = {"outbox": {"backoff_cap": 0.5}}


@dataclass(slots=True)
class Report:
    """What happened in all rounds."""

    kills: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    acknowledged: int = 0
    duplicates: int = 0
    lost: list[str] = field(default_factory=list)
    disordered: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    down: int = 0
    back_after: list[float] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [*self.wrong, *self.lost, *self.disordered, *self.renamed, *self.defects]

    @property
    def held(self) -> bool:
        return not self.problems and max(self.back_after, default=0.0) < BACK_WITHIN


async def keep_joining(sidecar: Sidecar, number: int, report: Report) -> None:
    """One joiner after the other, into open rooms and cancelled ones, until cancelled."""
    chance = random.Random(number)
    while True:
        room = chance.choice(["open", "cancelled"])
        try:
            asked = await sidecar.decides(f"{room}-{chance.randrange(20)}", f"user-{chance.randrange(10)}@example.com")
        except NOBODY:
            report.down += 1
            await asyncio.sleep(0.02)
            continue
        refused = asked.allowed is False and "refused" in asked.cache_status
        if asked.allowed is (room == "open") or refused:
            report.right += 1
        else:
            report.wrong.append(f"{room}: {asked}")
        await asyncio.sleep(0.002)


async def keep_telling(
    sidecar: Sidecar, room: str, acknowledged: list[int], *, again: bool, until: asyncio.Event
) -> None:
    """A room's events, one after the other. `again`: like the module, until each is acknowledged, under one key."""
    number = 0
    while not until.is_set():
        key = f"{room}/{number}" if again else None
        with contextlib.suppress(*NOBODY):
            if (await sidecar.event("user-joined", room, key, number=number)).status == 202:
                acknowledged.append(number)
                number += 1
                continue
        await asyncio.sleep(0.01)
        number += not again


async def keep_flapping(backend: Backend, chance: random.Random) -> None:
    """The meeting service is away for a moment, fails for a moment, is well for a moment."""
    while True:
        await asyncio.sleep(chance.uniform(0.2, 0.8))
        backend.on("user-joined", reply({}, status=500))
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        backend.on("user-joined", taken())
        await asyncio.sleep(chance.uniform(0.2, 0.8))
        await backend.stop()
        await asyncio.sleep(chance.uniform(0.05, 0.3))
        await backend.listen()


async def crash(kills: int, seed: int) -> Report:
    """Kills at random moments; returns what was seen."""
    report, chance = Report(), random.Random(seed)
    rooms = {f"room-{number}": number % 2 == 0 for number in range(ROOMS)}
    acknowledged: dict[str, list[int]] = {room: [] for room in rooms}
    enough = asyncio.Event()
    async with Backend() as backend, Sidecar.prepared(backend.url, SETTINGS, on_disk=True) as sidecar:
        backend.on("validate-access", allow_if(lambda body: not body["roomName"].startswith("cancelled")))
        await sidecar.run()
        beside = [asyncio.create_task(keep_joining(sidecar, number, report)) for number in range(JOINERS)]
        flapping = asyncio.create_task(keep_flapping(backend, chance))
        telling = [
            asyncio.create_task(keep_telling(sidecar, room, acknowledged[room], again=again, until=enough))
            for room, again in rooms.items()
        ]
        try:
            for _ in range(kills):
                await asyncio.sleep(chance.uniform(0.02, 0.4))
                await sidecar.kill()
                await came_back(sidecar, report)
            await asyncio.sleep(0.2)
            enough.set()
            await asyncio.gather(*telling)
        finally:
            for task in (*beside, *telling):
                task.cancel()
            flapping.cancel()
            await asyncio.gather(*beside, *telling, flapping, return_exceptions=True)
        await backend.stop()
        backend.on("user-joined", taken())
        await backend.listen()
        await emptied(sidecar)
        for room, again in rooms.items():
            check(room, again, acknowledged[room], backend, report)
        report.defects = [line for line in sidecar.output().splitlines() if "Traceback" in line or '"error"' in line]
    return report


async def came_back(sidecar: Sidecar, report: Report) -> None:
    begun = time.monotonic()
    await sidecar.run()
    report.back_after.append(time.monotonic() - begun)
    report.kills += 1


async def emptied(sidecar: Sidecar) -> None:
    """Wait until the outbox is empty."""
    async with asyncio.timeout(EMPTY_WITHIN):
        while await sidecar.metric("outbox_pending") > 0:
            await asyncio.sleep(0.02)


def check(room: str, again: bool, acknowledged: list[int], backend: Backend, report: Report) -> None:
    """Hold what arrived against what was acknowledged."""
    keys: dict[int, set[str | None]] = {}
    arrived = backend.events(room)
    for event in arrived:
        keys.setdefault(event.body["number"], set()).add(event.key)
    firsts = [event.body["number"] for event in backend.first_arrivals(room)]
    report.acknowledged += len(acknowledged)
    report.duplicates += len(arrived) - len(firsts)
    report.lost += [
        f"{room}: {number} was acknowledged and never arrived" for number in acknowledged if number not in keys
    ]
    report.disordered += [f"{room}: {b} came after {a}" for a, b in pairwise(firsts) if b <= a]
    for number, used in keys.items():
        if len(used) > 1 or (again and used != {f"{room}/{number}"}):
            report.renamed.append(f"{room}: {number} came as {sorted(map(str, used))}")


async def crash_at(point: str, times: int) -> Report:
    """Kills placed exactly: `accepted` is between commit and answer, `delivered` between delivery and mark."""
    report = Report()
    async with Backend() as backend, Sidecar.prepared(backend.url, SETTINGS, on_disk=True) as sidecar:
        for round_ in range(times):
            # The first passing, and a few later ones. A room per round: what comes before is checked in the end.
            room, environ = f"room-{round_}", {"KILL_AT": point, "KILL_NTH": str(round_ % 3 + 1)}
            await sidecar.run(module="tests.rig.killed", environ=environ)
            number = 0
            while sidecar.process is not None and sidecar.process.returncode is None:
                with contextlib.suppress(*NOBODY):
                    await sidecar.event("user-left", room, f"{room}/{number}", number=number)
                    number += 1
                await asyncio.sleep(0.01)
            await came_back(sidecar, report)
            acknowledged = list(range(number + 1))  # the module sends the one it got no answer for again
            assert (await sidecar.event("user-left", room, f"{room}/{number}", number=number)).status == 202
            await emptied(sidecar)
            check(room, True, acknowledged, backend, report)
            await sidecar.kill()
    return report


async def deny_then_crash(point: str, times: int) -> list[str]:
    """Allowed, then denied, killed at the deny, the backend gone: what the user gets afterwards, if it is wrong."""
    wrong = []
    cancelled: set[str] = set()
    fresh = {"fresh": 0, "stale_while_revalidate": 0}
    settings = {"endpoints": {"validate-access": {"allow": fresh, "deny": fresh}}}
    for round_ in range(times):
        async with Backend() as backend, Sidecar.prepared(backend.url, settings, on_disk=True) as sidecar:
            backend.on("validate-access", allow_if(lambda body: body["roomName"] not in cancelled))
            room = f"room-{round_}"
            cancelled.discard(room)
            if point == "answered":
                await sidecar.run()
            else:
                await sidecar.run(module="tests.rig.killed", environ={"KILL_AT": point})
            first = await sidecar.decides(room, "ann@example.com")
            assert first.allowed, first
            await asyncio.sleep(0.5)  # the allow is on disk
            cancelled.add(room)
            with contextlib.suppress(*NOBODY):
                denied = await sidecar.decides(room, "ann@example.com")
                assert point == "answered", denied
                assert denied.allowed is False
            await sidecar.kill()
            await backend.stop()
            await sidecar.run()
            after = await sidecar.decides(room, "ann@example.com")
            if after.allowed is not False:
                wrong.append(f"{point}, round {round_}: {after}")
    return wrong


def lines(report: Report) -> Iterator[str]:
    yield f"  kills              {report.kills}"
    yield f"  right answers      {report.right}"
    yield f"  wrong answers      {len(report.wrong)}"
    yield f"  events accepted    {report.acknowledged}"
    yield f"  events lost        {len(report.lost)}"
    yield f"  out of order       {len(report.disordered)}"
    yield f"  under another key  {len(report.renamed)}"
    yield f"  repeated           {report.duplicates}"
    yield f"  found it down      {report.down}"
    yield f"  back, at worst     {max(report.back_after, default=0.0) * 1000:.0f} ms after it was started again"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="times that it is killed at random (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="decides the moments (default 1)")
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    console.print(f"{arguments.kills} kills at random moments, while {JOINERS} people join and {ROOMS} rooms tell ...")
    report = asyncio.run(crash(arguments.kills, arguments.seed))
    placed = max(2, arguments.kills // 10)
    for line in lines(report):
        console.print(line)
    good = report.held
    for point, where in (("accepted", "between commit and answer"), ("delivered", "between delivery and mark")):
        at = asyncio.run(crash_at(point, placed))
        repeated = f"{at.duplicates} repeated" if at.duplicates else "none repeated"
        console.print(f"{placed} kills {where}: {len(at.problems)} of {at.acknowledged} events wrong, {repeated}")
        report.wrong += at.problems
        good = good and at.held
    for point, where in (("denied", "before"), ("answered", "after")):
        forgotten = asyncio.run(deny_then_crash(point, 2 * placed))
        denied = f"{2 * placed - len(forgotten)} of {2 * placed} still denied"
        console.print(f"{2 * placed} kills {where} a deny is answered, the backend gone: {denied}")
        report.wrong += forgotten
        good = good and not forgotten
    for line in report.problems[:10]:
        console.print(f"  [red]{line}[/red]")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
