"""Rows of `make faults` in which the backend is well and the load is not: nobody who may come in is refused.

many rooms at once | strangers at one instant, and the backend takes 0.5 s | one guest with made-up room names
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from aiohttp import web
from rich.table import Table

from tests.rig.answers import Request, reply
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

ENDPOINT = "validate-access"


@dataclass
class Burst:
    """What the invited users got."""

    name: str
    asked: int = 0
    allowed: int = 0
    seconds: list[float] = field(default_factory=list)
    calls: int = 0
    most_at_once: int = 0
    opened: int = 0
    """Times that a breaker opened."""

    def judge(self) -> list[str]:
        """What is wrong."""
        missed = []
        if self.allowed != self.asked:
            missed.append(f"{self.asked - self.allowed} of {self.asked} invited users were refused")
        if self.opened:
            missed.append("the breaker opened")
        return missed


async def rooms_at_once(count: int = 3000, latency: float = 0.05) -> Burst:
    """So many meetings begin at the same instant."""
    burst = Burst(f"{count} rooms at once")
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        backend.latency = latency
        await asyncio.gather(*(_join(sidecar, burst, f"room-{n}", f"user-{n}@example.com") for n in range(count)))
        await _look_back(burst, backend, sidecar)
    return burst


async def strangers(count: int = 1000, latency: float = 0.5) -> Burst:
    """So many users of whom nothing is remembered, and a backend that takes its time."""
    burst = await rooms_at_once(count, latency)
    burst.name = f"{count} strangers, {latency:g} s"
    return burst


GUEST, ACCOUNT = "guest", "account"
UNREADABLE = "\N{BOMB}"
"""A display name that this backend cannot read, as a database without all of Unicode cannot."""


async def made_up_names(
    seconds: float = 6.0,
    status: int = 500,
    people: Sequence[str] = (GUEST,),
    *,
    known_names: bool = False,
    unreadable: bool = False,
) -> Burst:
    """These people, each on a connection of its own, try ten room names a second that the backend answers with an
    error; others join meanwhile. `known_names`: every other name is of a room that exists. `unreadable`: all are, and
    the backend cannot read the names of these people."""
    burst = Burst(f"{' + '.join(people)} with {'unreadable' if unreadable else 'made-up'} names, {status}")

    async def answer(request: Request) -> web.StreamResponse:
        made_up = request.body["roomName"].startswith("%") or request.body.get("userName") == UNREADABLE
        return await reply(*(({"error": "oops"}, status) if made_up else ({"allowed": True},)))(request)

    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        backend.on(ENDPOINT, answer)

        async def guest() -> None:
            for number in range(int(10 * seconds)):
                kind = people[number % len(people)]
                known = unreadable or (known_names and number % 2)
                room = f"real-{number % 12}" if known else f"%F0%9F%98%8{number}"
                who = f"{kind}-{number % len(people)}@example.com"
                name = {"userName": UNREADABLE} if unreadable else {}
                await sidecar.decides(room, who, guest=kind == GUEST, **name)
                await asyncio.sleep(0.1)

        async def users() -> None:
            await asyncio.sleep(seconds / 2)  # for as long, the guest is alone
            for number in range(int(2 * seconds)):
                await _join(sidecar, burst, f"real-{number}", f"user-{number}@example.com")
                await asyncio.sleep(0.25)

        for number in range(12 if unreadable else 0):
            await sidecar.decides(f"real-{number}", "early@example.com")
        await asyncio.gather(guest(), users())
        await _look_back(burst, backend, sidecar)
    return burst


async def _join(sidecar: Sidecar, burst: Burst, room: str, who: str) -> None:
    """One question on a connection of its own, with as little work as possible for this process."""
    body = json.dumps({"roomName": room, "userJid": f"{who}/r", "timestamp": 1})
    head = "Host: x\r\nConnection: close\r\nContent-Type: application/json"
    reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.config["listen"]["port"])
    begun = time.monotonic()
    request = f"POST /webhooks/jitsi/{ENDPOINT} HTTP/1.1\r\n{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    writer.write(request.encode())
    answer = await reader.read()
    writer.close()
    burst.asked += 1
    burst.allowed += b'"allowed":true' in answer
    burst.seconds.append(time.monotonic() - begun)


async def _look_back(burst: Burst, backend: Backend, sidecar: Sidecar) -> None:
    burst.calls = len(backend.requests)
    burst.most_at_once = backend.most_at_once[ENDPOINT]
    burst.opened = int(await sidecar.metric("breaker_moves_total", state="open"))


async def all_bursts() -> list[Burst]:
    """One after the other, as each needs the whole machine."""
    return [
        await rooms_at_once(),
        await strangers(),
        await made_up_names(status=500),
        await made_up_names(status=404),
        await made_up_names(people=[GUEST] * 3),
        await made_up_names(people=[ACCOUNT]),
        await made_up_names(unreadable=True),
    ]


def as_table(bursts: Sequence[Burst]) -> Table:
    """One line per burst."""
    table = Table(title="What users get while the load is high and the backend is well", title_justify="left")
    for name in ("load", "let in", "p50", "last", "calls", "at once", "breaker opened"):
        table.add_column(name, justify="left" if name == "load" else "right")
    for burst in bursts:
        ordered = sorted(burst.seconds)
        cells = [burst.name, f"{burst.allowed} of {burst.asked}", f"{ordered[len(ordered) // 2]:.2f} s"]
        cells += [f"{ordered[-1]:.2f} s", str(burst.calls), str(burst.most_at_once), str(burst.opened)]
        table.add_row(*cells, style="red" if burst.judge() else None)
    return table
