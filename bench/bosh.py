"""Part `bosh`: a join over BOSH, one after the other. As browsers do, one request always waits at Prosody, and what is
said meanwhile goes in a second one. Users are some distance away, where round trips count more than CPU."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Callable

from bench.prosodys import BARE, FLOOR, SIDECAR, Way, ways
from bench.sample import Measured, Sample, WentWrong, tried
from bench.users import GIVE_UP_AFTER, Session
from tests.rig.prosody import VERSIONS

ROWS = (BARE, FLOOR, SIDECAR)
DISTANCES = {"beside Prosody": (0.0, 100), "a round trip of 20 ms": (0.01, 30)}
"""Seconds on the way from the browser to Prosody, and how many joins."""

ROOMS = 10
"""They are joined before, so a sidecar has cached answers."""


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """All ways in turn."""
    for version in VERSIONS[:1] if quick else VERSIONS:
        say(f"bosh: the Prosodys {version} start")
        async with ways("bosh", version, ROWS, 0) as (ready, failures):
            for missing in failures:
                yield missing
            for number in range(rounds):
                for way in ready:
                    say(f"bosh, round {number + 1}: {version}, {way.who}")
                    for distance in DISTANCES:
                        async for each in tried("bosh", way.who, joined(version, way, number, distance)):
                            yield each


async def joined(version: str, way: Way, number: int, distance: str) -> AsyncIterator[Sample]:
    """One user, who joins and leaves."""
    seconds, joins = DISTANCES[distance]
    async with asyncio.timeout(GIVE_UP_AFTER):
        browser = Browser(way, seconds)
        try:
            await browser.log_in()
            for room in range(ROOMS):
                await browser.join(f"bosh-{room}")
            cpu = way.cpu()
            times = sorted([await browser.join(f"bosh-{each % ROOMS}") for each in range(joins)])
            cpu = way.cpu() - cpu
        finally:
            await browser.close()
    for figure, value in (
        ("p50 ms", times[len(times) // 2] * 1e3),
        ("p99 ms", times[len(times) * 99 // 100] * 1e3),
        ("CPU µs, join and leave", cpu / joins * 1e6),
    ):
        yield Sample("bosh", f"{version}, {distance}", way.who, figure, value, number)


class Browser:
    """A session over BOSH, on two kept connections."""

    def __init__(self, way: Way, distance: float) -> None:
        """Not open yet. `distance`: seconds that a request and a response are on their way."""
        self._distance = distance
        self._muc, self._port, self._domain = way.server.muc, way.server.http_port, way.server.domain
        self._rid, self._sid = random.randrange(1_000_000, 2_000_000_000), ""
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._responses: asyncio.Queue[str] = asyncio.Queue()

    async def log_in(self) -> None:
        """As nobody in particular."""
        self._post(f"to='{self._domain}' wait='30' hold='1' xmlns:xmpp='urn:xmpp:xbosh' xmpp:version='1.0'")
        await self._until("features")
        self._post("", "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>")
        await self._until("<success")
        self._post(f"to='{self._domain}' xmlns:xmpp='urn:xmpp:xbosh' xmpp:restart='true'")
        await self._until("features")
        bind = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"
        self._post("", f"<iq type='set' id='b' xmlns='jabber:client'>{bind}</iq>")
        await self._until("<jid>")

    async def join(self, room: str) -> float:
        """Seconds until the user is in. The room is empty before and after."""
        jid = f"{room}@{self._muc}/n"
        begun = time.perf_counter()
        self._post(
            "", f"<presence to='{jid}' xmlns='jabber:client'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        found = await self._until(Session.IN.decode(), "type='error'")
        took = time.perf_counter() - begun
        if "type='error'" in found:
            raise WentWrong(f"a join was refused: {found[:300]}")
        self._post("", f"<presence to='{jid}' type='unavailable' xmlns='jabber:client'/>")
        await self._until("type='unavailable'")
        return took

    async def close(self) -> None:
        """Without a word."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _until(self, *wanted: str) -> str:
        seen = ""
        while not any(each in seen for each in wanted):
            seen += await self._responses.get()
        return seen

    def _post(self, attributes: str, payload: str = "") -> None:
        self._rid += 1
        sid = f"sid='{self._sid}' " if self._sid else ""
        body = f"<body rid='{self._rid}' {sid}{attributes} xmlns='http://jabber.org/protocol/httpbind'>{payload}</body>"
        task = asyncio.ensure_future(self._exchange(body.encode()))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _exchange(self, body: bytes) -> None:
        if not self._free:
            self._free.append(await asyncio.open_connection("127.0.0.1", self._port))
            self._writers.append(self._free[-1][1])
        reader, writer = self._free.pop()
        await asyncio.sleep(self._distance)
        writer.write(
            f"POST /http-bind HTTP/1.1\r\nHost: {self._domain}\r\nContent-Type: text/xml; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: *(\d+)", head)
        if length is None:
            raise WentWrong(f"not an answer of BOSH: {head[:300]}")
        answer = (await reader.readexactly(int(length[1]))).decode()
        await asyncio.sleep(self._distance)
        self._free.append((reader, writer))
        if found := re.search(r"\bsid='([^']+)'", answer):
            self._sid = found[1]
        if "type='terminate'" in answer:
            raise WentWrong(f"the session was ended: {answer[:300]}")
        self._responses.put_nowait(answer)
        if len(self._under_way) <= 1 and self._sid:
            self._post("")
