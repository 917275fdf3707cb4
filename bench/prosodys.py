"""Real Prosodys of one version side by side, each with another way to decide about a join:

| bare Prosody | nobody is asked |
| constant config | tests/prosody/plugins/mod_rig_floor.lua: a constant ROOM_CONFIG to whoever joins |
| config applied, one question | and each new room is set up, and a question goes to the sidecar over a WebSocket: the
                                 least that the job needs |
| module + sidecar | the module, with its link to the sidecar |
| module alone | the module asks the meeting service itself, over HTTP |
| module + nginx | the module asks nginx, over HTTP |

If there are two cores, the Prosodys have one of them, and everything else shares the other one. The sidecar and nginx
have their default logs, and keep what they know on disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from bench import meetings
from bench.backend import PREFIX
from bench.installed import python
from bench.peers import Peer, Server, at_a_place
from bench.peers.nginx import nginx
from bench.peers.ours import Ours
from bench.peers.place import Place, serving
from bench.program import CLIENT_CORE, SERVER_CORE
from bench.sample import FAILURES, Failure, WentWrong, failure
from bench.users import GIVE_UP_AFTER, Session
from tests.rig.prosody import Prosody, why_missing
from tests.rig.xmpp import JITMEET, Client, json_message

BARE, CONSTANT, FLOOR = "bare Prosody", "constant config", "config applied, one question"
SIDECAR, ALONE, NGINX = "module + sidecar", "module alone", "module + nginx"
WAYS = (BARE, CONSTANT, FLOOR, SIDECAR, ALONE, NGINX)
OURS = (SIDECAR, ALONE, NGINX)
"""Those with the module."""

LIFETIMES = {"fresh": 600, "stale_while_revalidate": 0}
SETTINGS: dict[str, Any] = {
    "endpoints": {"room-created": LIFETIMES, "validate-access": {"allow": LIFETIMES}},
    "identity": {"anonymous_domains": ["localhost"]},
}


@dataclass(frozen=True, slots=True)
class Way:
    """A Prosody that is ready, with its users."""

    who: str
    server: Prosody
    users: list[Session]
    around: Around

    def cpu(self) -> float:
        """Seconds of CPU that this Prosody has used."""
        return time.clock_gettime((~self.server.process.pid << 3) | 2)  # the clock of the process


@dataclass(frozen=True, slots=True)
class Around:
    """What the Prosodys of a version ask: by the way that does, the server, or why it does not run."""

    servers: Mapping[str, Server]
    broken: Mapping[str, str]

    def url(self, who: str) -> str | None:
        """Whom this way asks. Raises WentWrong if that does not run."""
        asked = SIDECAR if who == FLOOR else who
        if asked in self.broken:
            raise WentWrong(self.broken[asked])
        return f"http://127.0.0.1:{self.servers[asked].port}{PREFIX}" if asked in self.servers else None

    def cpu(self) -> float:
        """Seconds of CPU of all of it, and of this process, which plays the users."""
        return sum(each.cpu_seconds() for each in self.servers.values()) + time.process_time()


@asynccontextmanager
async def ways(
    table: str, version: str, wanted: Sequence[str], users: int
) -> AsyncIterator[tuple[list[Way], list[Failure]]]:
    """Those that come up, with so many users each; and for the table, why others do not."""
    if missing := why_missing(version):
        raise WentWrong(f"Prosody {version}: {missing}")
    async with AsyncExitStack() as stack:
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {CLIENT_CORE})
        stack.callback(os.sched_setaffinity, 0, before)
        around = await stack.enter_async_context(_around())
        ready, failures, config = list[Way](), list[Failure](), ""
        for who in sorted(wanted, key=lambda who: who != SIDECAR):  # it says what the constant config is
            try:
                way = await stack.enter_async_context(_way(version, who, users, around, config))
                await _check(way)
                if who == SIDECAR:
                    config = await _config_of(way.server)
                ready.append(way)
            except FAILURES as error:
                failures.append(failure(table, f"{who}, {version}", error))
        yield sorted(ready, key=lambda way: wanted.index(way.who)), failures


@asynccontextmanager
async def _around() -> AsyncIterator[Around]:
    async with AsyncExitStack() as stack:
        servers, broken = dict[str, Server](), dict[str, str]()
        peers: dict[str, Peer] = {ALONE: _meetings, SIDECAR: Ours(SETTINGS), NGINX: nginx}
        for who, peer in peers.items():
            place = replace(await stack.enter_async_context(at_a_place()), core=CLIENT_CORE)
            if ALONE in servers:
                place = replace(place, backend_port=servers[ALONE].port)
            try:
                servers[who] = await stack.enter_async_context(peer(place))
            except FAILURES as error:
                broken[who] = str(error)
        yield Around(servers, broken)


@asynccontextmanager
async def _meetings(place: Place) -> AsyncIterator[Server]:
    async with serving(place, "meetings", python(), "-m", "bench.meetings", str(place.port)) as server:
        yield server


@asynccontextmanager
async def _way(version: str, who: str, users: int, around: Around, config: str) -> AsyncIterator[Way]:
    url, with_floor = around.url(who), who in (CONSTANT, FLOOR)
    if with_floor and not config:
        raise WentWrong(f"the config is that of {SIDECAR}, which does not run")
    options = {"rig_floor_config": config} if with_floor else {}
    modules = ("rig_floor",) if with_floor else ("muc_webhook",) if url else ()
    if who == FLOOR and url:
        options |= {"rig_floor_url": url, "rig_floor_settings": json.dumps(meetings.SETTINGS)}
    webhook_url = url if who in OURS else None
    async with Prosody.start(
        version=version, webhook_url=webhook_url, options=options, muc_modules=modules, log_level="info"
    ) as server:
        os.sched_setaffinity(server.process.pid, {SERVER_CORE})
        if with_floor and not await server.lua(f'return prosody.hosts["{server.muc}"].modules.rig_floor ~= nil'):
            raise WentWrong(f"mod_rig_floor is not loaded: {server.log()[-500:]}")
        if who in (FLOOR, SIDECAR):
            await _until_linked(server)
        crowd = [await Session.connect(server) for _ in range(users)]
        try:
            yield Way(who, server, crowd, around)
        finally:
            for session in crowd:
                session.transport.abort()


async def _until_linked(server: Prosody) -> None:
    give_up_at = time.monotonic() + GIVE_UP_AFTER
    while not ("The link" in (log := server.log()) and " is up" in log):
        if time.monotonic() > give_up_at:
            raise WentWrong(f"its link does not come up: {log[-500:]}")
        await asyncio.sleep(0.02)


async def _check(way: Way) -> None:
    """Raises WentWrong if a denied user gets in, or an allowed user does not. Rooms like "closed" are denied."""
    async with Client.connect(way.server) as ann, Client.connect(way.server) as eve:
        if not (await ann.join("open", "ann")).joined:
            raise WentWrong("an allowed user was refused")
        if way.who in (*OURS, FLOOR) and (await eve.join("closed", "eve")).joined:
            raise WentWrong("a denied user was let in")


async def _config_of(server: Prosody) -> str:
    """The text of the ROOM_CONFIG that the module sends."""
    async with Client.connect(server) as ann:
        await ann.begin_join("first", "ann")
        message = await ann.expect(lambda each: json_message(each) is not None)
        return message.findtext(f"{JITMEET}json-message") or ""
