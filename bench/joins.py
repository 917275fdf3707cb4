"""The cost of a join in real Prosody: without the module, with module and sidecar, with module and no sidecar.

    python -m bench.joins --rounds 3 --versions 0.12 --sizes 1 10

All sessions are connected before. Only the joins are timed, with a limited number at the same time; leaving is not.
Each round measures all cases, so that other load on the machine affects all of them. If there are two cores, Prosody
has one of them, and everything else shares the other one.

`warm`: the rooms were joined before, so a sidecar has cached answers. `cold`: the rooms are new.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.table import Table

from bench.sample import Sample
from tests.rig.ports import free_port
from tests.rig.prosody import VERSIONS, Prosody, why_missing
from tests.rig.sidecar import Sidecar

BARE, SIDECAR, DIRECT, NGINX = "bare Prosody", "module + sidecar", "module, no sidecar", "module + nginx"
CPU = "Prosody CPU us/join"
SIZES = (1, 5, 10, 25)
STATES = ("warm", "cold")
SESSIONS = 100
JOINS = 200
AT_ONCE = 16
GIVE_UP_AFTER = 30.0
ROUNDS = 100
"""Limits; a longer run gives no more information."""

LIFETIMES = {"fresh": 600, "stale_while_revalidate": 0}
SETTINGS = {
    "endpoints": {"room-created": LIFETIMES, "validate-access": {"allow": LIFETIMES}},
    "identity": {"anonymous_domains": ["localhost"]},
    "log": {"level": "warning"},
}

_names = itertools.count(1)


class Session(asyncio.Protocol):
    """An anonymous user; reads only the few bytes that show the result of a join."""

    IN, ERROR = b"<status code='110'/>", b"type='error'"

    def __init__(self) -> None:
        self._wanted: tuple[bytes, ...] = ()
        self._found: asyncio.Future[bytes] | None = None
        self._seen = b""
        self._free = asyncio.Lock()

    @classmethod
    async def connect(cls, server: Prosody) -> Self:
        _, it = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", server.c2s_port)
        stream = (
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
            f"xmlns:stream='http://etherx.jabber.org/streams' to='{server.domain}'>"
        )
        await it.exchange(stream, b"</stream:features>")
        await it.exchange("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>", b"<success")
        await it.exchange(stream, b"</stream:features>")
        bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
        await it.exchange(bind, b"</iq>")
        return it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._found is None or self._found.done():
            return
        self._seen = self._seen[-40:] + data
        for text in self._wanted:
            if text in self._seen:
                self._found.set_result(text)
                return

    def connection_lost(self, exc: Exception | None) -> None:
        if self._found is not None and not self._found.done():
            self._found.set_exception(exc or ConnectionError("Prosody closed the stream"))

    async def exchange(self, xml: str, *wanted: bytes) -> bytes:
        """Sends this after the answer to the last one, and waits for the first of these texts."""
        async with self._free:
            self._wanted, self._seen = wanted, b""
            self._found = asyncio.get_running_loop().create_future()
            self.transport.write(xml.encode())
            return await asyncio.wait_for(self._found, GIVE_UP_AFTER)

    async def join(self, room_jid: str, nick: str) -> bool:
        presence = f"<presence to='{room_jid}/{nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        return await self.exchange(presence, self.IN, self.ERROR) == self.IN

    def leave(self, room_jid: str, nick: str) -> None:
        self.transport.write(f"<presence type='unavailable' to='{room_jid}/{nick}'/>".encode())


@dataclass(frozen=True, slots=True)
class Place:
    """A Prosody and its users."""

    who: str
    server: Prosody
    crowd: list[Session]

    def cpu(self) -> float:
        """Seconds of CPU that this Prosody has used, from the clock of its process."""
        return time.clock_gettime((~self.server.process.pid << 3) | 2)

    def jid(self, room: str) -> str:
        return f"{room}@{self.server.muc}"


@dataclass(frozen=True, slots=True)
class Run:
    """A number of joins into rooms of a size; `name` makes the rooms different from those of other runs."""

    size: int
    joins: int
    at_once: int
    name: str

    def each(self) -> Iterator[tuple[int, str, str]]:
        """Number, room and nick of each join."""
        for number in range(self.joins):
            yield number, f"{self.name}-{number // self.size}", f"n{number % self.size}"


async def join_all(place: Place, run: Run) -> list[float]:
    """Seconds that each join took."""
    todo, times = run.each(), list[float]()

    async def keep_joining() -> None:
        for number, room, nick in todo:
            begun = time.perf_counter()
            if not await place.crowd[number % len(place.crowd)].join(place.jid(room), nick):
                raise RuntimeError(f"{place.who}: a join into {room} was refused")
            times.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        for _ in range(run.at_once):
            group.create_task(keep_joining())
    return times


async def leave_all(place: Place, run: Run) -> None:
    for number, room, nick in run.each():
        place.crowd[number % len(place.crowd)].leave(place.jid(room), nick)
    begun = time.monotonic()
    while await place.server.rooms():
        if time.monotonic() > begun + GIVE_UP_AFTER:
            raise RuntimeError(f"{place.who}: rooms remain after all users have left")
        await asyncio.sleep(0.05)


async def measure_one(place: Place, run: Run, warm: bool) -> dict[str, float]:
    first = run if warm else Run(run.size, run.joins // 4, run.at_once, run.name + "-others")
    await join_all(place, first)
    await leave_all(place, first)
    await place.server.lua("collectgarbage()")
    cpu, begun = place.cpu(), time.perf_counter()
    times = sorted(await join_all(place, run))
    took, cpu = time.perf_counter() - begun, place.cpu() - cpu
    await leave_all(place, run)
    return {
        "joins/s": run.joins / took,
        "p50 ms": times[len(times) // 2] * 1e3,
        "p99 ms": times[len(times) * 99 // 100] * 1e3,
        CPU: cpu / run.joins * 1e6,
    }


async def check(place: Place) -> None:
    """Raises if a denied user gets in, or an allowed user does not."""
    open_room, closed_room = f"open-{next(_names)}", f"closed-{next(_names)}"
    if not await place.crowd[0].join(place.jid(open_room), "ann"):
        raise RuntimeError(f"{place.who}: an allowed user was refused")
    if place.who != BARE:
        if await place.crowd[1].join(place.jid(closed_room), "eve"):
            raise RuntimeError(f"{place.who}: a denied user was let in")
        if await place.server.occupants(closed_room):
            raise RuntimeError(f"{place.who}: a denied user is in the room")
    place.crowd[0].leave(place.jid(open_room), "ann")


@contextmanager
def other_cores() -> Iterator[int | None]:
    """Keeps this process and its children off one core. Returns that core, or None if there is only one."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        yield None
        return
    core = min(allowed)
    os.sched_setaffinity(0, allowed - {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, allowed)


@asynccontextmanager
async def meetings() -> AsyncIterator[str]:
    """The meeting service in its own process; yields its URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.meetings", str(port))
    try:
        async with asyncio.timeout(GIVE_UP_AFTER):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        writer.close()
        yield f"http://127.0.0.1:{port}/webhooks/jitsi"
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def prosody(version: str, who: str, url: str | None, core: int | None) -> AsyncIterator[Place]:
    modules = () if url is None else ("muc_webhook",)
    async with Prosody.start(version=version, webhook_url=url, muc_modules=modules, log_level="info") as server:
        if core is not None:
            os.sched_setaffinity(server.process.pid, {core})
        crowd = [await Session.connect(server) for _ in range(SESSIONS)]
        try:
            yield Place(who, server, crowd)
        finally:
            for session in crowd:
                session.transport.abort()


async def measure(
    rounds: int,
    *,
    versions: Sequence[str] = VERSIONS,
    sizes: Sequence[int] = SIZES,
    states: Sequence[str] = STATES,
    joins: int = JOINS,
    at_once: int = AT_ONCE,
    nginx_url: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[Sample]:
    """All cases, `rounds` times. With `nginx_url`, the module also asks there."""
    if not 1 <= rounds <= ROUNDS or at_once > SESSIONS or max(sizes) > SESSIONS:
        raise ValueError(f"at most {ROUNDS} rounds, {SESSIONS} joins at the same time and {SESSIONS} users in a room")
    for version in versions:
        if missing := why_missing(version):
            say(f"Prosody {version} is left out: {missing}")
            continue
        async with AsyncExitStack() as stack:
            core = stack.enter_context(other_cores())
            backend_url = await stack.enter_async_context(meetings())
            sidecar = await stack.enter_async_context(Sidecar.start(backend_url, SETTINGS))
            urls = {BARE: None, SIDECAR: sidecar.webhooks, DIRECT: backend_url}
            if nginx_url is not None:
                urls[NGINX] = nginx_url
            places = [await stack.enter_async_context(prosody(version, who, url, core)) for who, url in urls.items()]
            for place in places:
                await check(place)
            for number in range(1, rounds + 1):
                turn = places[number % len(places) :] + places[: number % len(places)]
                for size, state, place in itertools.product(sizes, states, turn):
                    run = Run(size, joins, at_once, f"r{next(_names)}")
                    figures = await measure_one(place, run, state == "warm")
                    case = f"{version}, rooms of {size}, {state}"
                    say(f"round {number}: {case}, {place.who}: {figures['joins/s']:.0f} joins/s")
                    for figure, value in figures.items():
                        yield Sample("joins", case, place.who, figure, value, number)


def table(samples: Sequence[Sample]) -> Table:
    """Medians, and the ratio to the joins of bare Prosody: the median of the ratios within each round."""
    values = defaultdict[tuple[str, str, str], dict[int, float]](dict)
    for sample in samples:
        values[sample.case, sample.who, sample.figure][sample.round] = sample.value
    figures = list(dict.fromkeys(s.figure for s in samples))
    result = Table(title="Joins into real Prosody (medians)")
    for name in ("case", "who", *figures, "joins/s of bare", "CPU of bare"):
        result.add_column(name, justify="left" if name in ("case", "who") else "right")
    order = list(dict.fromkeys(s.case for s in samples))
    for case, who in sorted({(s.case, s.who) for s in samples}, key=lambda row: (order.index(row[0]), row[1])):
        cells = [f"{statistics.median(values[case, who, figure].values()):.1f}" for figure in figures]
        ratios = []
        for figure in ("joins/s", CPU):
            bare, ours = values[case, BARE, figure], values[case, who, figure]
            ratios.append(statistics.median(ours[number] / bare[number] for number in ours.keys() & bare.keys()))
        result.add_row(case, who, *cells, *(f"{ratio:.2f}" for ratio in ratios))
    return result


async def run(arguments: argparse.Namespace, console: Console) -> None:
    samples = [
        sample
        async for sample in measure(
            arguments.rounds,
            versions=arguments.versions,
            sizes=arguments.sizes,
            states=arguments.states,
            joins=arguments.joins,
            at_once=arguments.at_once,
            nginx_url=arguments.nginx_url,
            say=lambda text: console.print(text, style="dim", highlight=False),
        )
    ]
    console.print(table(samples))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.joins", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of all measurements in turn (default 5)")
    parser.add_argument("--versions", nargs="+", default=list(VERSIONS), choices=VERSIONS)
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="users a room")
    parser.add_argument("--states", nargs="+", default=list(STATES), choices=STATES)
    parser.add_argument("--joins", type=int, default=JOINS, help=f"a measurement (default {JOINS})")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=f"joins under way (default {AT_ONCE})")
    parser.add_argument("--nginx-url", help="where an nginx listens that has the meeting service behind it")
    asyncio.run(run(parser.parse_args(), Console(width=150 if not sys.stdout.isatty() else None)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
