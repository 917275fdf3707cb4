"""What a warm join costs in Prosody, counted and not timed: steps of Lua's interpreter, and kilobytes while its
collector stands still. The measure is the least that the job needs (plugins/mod_rig_floor.lua), in the same run.

To see the figures: python -m pytest tests/prosody/test_cost_of_a_join.py -s
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web

from bench.meetings import SETTINGS, answer
from tests.prosody.conftest import Server, StartProsody, eventually
from tests.rig.answers import Request
from tests.rig.xmpp import JITMEET, Client, json_message, statuses

pytestmark = pytest.mark.asyncio(loop_scope="session")

JOINS, PEOPLE = 200, 20
SIZES = {1: (1.22, 1.06), 10: (1.055, 1.01)}
"""Of the rooms -> what ours may be of the floor, in steps and in kilobytes."""
BEGIN = """
    local count = { steps = 0 };
    prosody.rig_count = count;
    local function hook() count.steps = count.steps + 100; end
    count.thread = function (thread, f) debug.sethook(thread, f, "", f and 100); end
    count.threads = function (f)
        count.thread(debug.getregistry()[1], f);
        for _, session in pairs(prosody.full_sessions) do
            local thread = session.thread and session.thread.thread;
            if thread then count.thread(thread, f); end
        end
    end
    count.threads(hook)"""
END = "prosody.rig_count.threads(nil); return prosody.rig_count.steps"
STOP = 'collectgarbage(); collectgarbage(); collectgarbage("stop"); return collectgarbage("count")'
GO_ON = 'local kilobytes = collectgarbage("count"); collectgarbage("restart"); return kilobytes'


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one join."""

    steps: float
    kilobytes: float

    def times(self, other: Cost) -> tuple[float, float]:
        return self.steps / other.steps, self.kilobytes / other.kilobytes


def is_own_presence(stanza: ET.Element, room: str) -> bool:
    return stanza.get("type") is None and room in stanza.get("from", "") and "110" in statuses(stanza)


async def config(request: Request) -> web.StreamResponse:
    settings = json.loads(answer(b"room-created", request.content))
    return web.json_response({**settings, "isPublic": True})


async def decision(request: Request) -> web.StreamResponse:
    return web.Response(body=answer(b"validate-access", request.content))


class Crowd:
    """The people who join."""

    def __init__(self, server: Server, people: list[Client]) -> None:
        self.server = server
        self.people = people

    async def each(self, name: str, size: int, do: Callable[[Client, str, str], Awaitable[None]]) -> None:
        """For the joins into rooms of this size: who, the room, and the nick."""
        for number in range(JOINS):
            await do(self.people[number % len(self.people)], f"{name}-{number // size}", f"n{number % size}")

    async def join(self, name: str, size: int) -> None:
        async def join(who: Client, room: str, nick: str) -> None:
            await who.begin_join(room, nick)
            await who.expect(lambda each: is_own_presence(each, room))
            who.inbox.clear()

        await self.each(name, size, join)

    async def leave(self, name: str, size: int) -> None:
        async def leave(who: Client, room: str, nick: str) -> None:
            await who.send(f"<presence type='unavailable' to='{who.room_jid(room)}/{nick}'/>")

        await self.each(name, size, leave)
        await eventually(self.server.rooms, [])

    async def cost(self, name: str, size: int) -> Cost:
        """Of a join into a room that was joined before."""
        await self.join(name, size)
        await self.leave(name, size)
        before = await self.server.lua(STOP)
        await self.join(name, size)
        kilobytes = (await self.server.lua(GO_ON) - before) / JOINS
        await self.leave(name, size)
        await self.server.lua(BEGIN)
        await self.join(name, size)
        steps = await self.server.lua(END) / JOINS
        await self.leave(name, size)
        return Cost(steps, kilobytes)


@asynccontextmanager
async def crowd(server: Server) -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(server, [await stack.enter_async_context(Client.connect(server)) for _ in range(PEOPLE)])


async def linked(server: Server) -> Server:
    """Our module with its backend as the sidecar, and the link to it up."""
    server.backend.on("validate-access", decision)
    server.backend.on("room-created", config)
    await server.link_up()
    return server


async def config_message(server: Server) -> str:
    """The text of the ROOM_CONFIG that our module sends."""
    async with Client.connect(server) as ann:
        await ann.begin_join("first-0", "ann")
        message = await ann.expect(lambda each: json_message(each) is not None)
        return message.findtext(f"{JITMEET}json-message") or ""


async def has_logged(server: Server, text: str) -> bool:
    return text in server.log()


async def costs(start_prosody: StartProsody) -> dict[str, dict[int, Cost]]:
    """By server and by the size of the rooms."""
    ours = await linked(await start_prosody(fresh=True, log_level="info"))
    options = {"rig_floor_config": await config_message(ours)}
    asking = {**options, "rig_floor_url": ours.backend.url}
    start = {"fresh": True, "log_level": "info", "webhook_url": None}
    servers = {
        "ours": ours,
        "bare": await start_prosody(**start, muc_modules=()),
        "constant config": await start_prosody(**start, muc_modules=("rig_floor",), options=options),
    }
    servers["one question"] = await start_prosody(**start, muc_modules=("rig_floor",), options=asking)
    setting_up = {**asking, "rig_floor_settings": json.dumps(SETTINGS)}
    servers["floor"] = await start_prosody(**start, muc_modules=("rig_floor",), options=setting_up)
    for name in ("one question", "floor"):
        await eventually(partial(has_logged, servers[name], "The link of the floor is up"), True)
    found: dict[str, dict[int, Cost]] = {}
    for name, server in servers.items():
        async with crowd(server) as people:
            found[name] = {size: await people.cost(f"rooms-of-{size}", size) for size in SIZES}
    return found


async def test_a_warm_join_costs_little_more_than_the_least(start_prosody: StartProsody) -> None:
    found = await costs(start_prosody)
    for name, by_size in found.items():
        for size, cost in by_size.items():
            steps, kilobytes = cost.times(found["floor"][size])
            print(
                f"{name:16} rooms of {size:2}: {cost.steps:7.0f} steps {cost.kilobytes:6.2f} KB; "
                f"of the floor {steps:.3f} {kilobytes:.3f}"
            )
    for size, most in SIZES.items():
        times = found["ours"][size].times(found["floor"][size])
        assert times[0] <= most[0], f"rooms of {size}: {times[0]:.3f} of the floor's steps"
        assert times[1] <= most[1], f"rooms of {size}: {times[1]:.3f} of the floor's kilobytes"
