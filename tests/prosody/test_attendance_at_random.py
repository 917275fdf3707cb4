"""Joins, leaves, changes of nick, second sessions, kicks, broken connections and reloads, in any order."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.prosody.story import OPTIONS, rename, story
from tests.rig.answers import Request
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

Step = Callable[[], Awaitable[None]]


@dataclass
class Crowd:
    """Clients that do something at random; who is in where is only what Prosody says."""

    prosody: Server
    room: str
    chance: random.Random
    stack: AsyncExitStack
    inside: dict[str, tuple[Client, str]] = field(default_factory=dict)
    """Full JID -> the client and its nick."""
    number: int = 0

    def new_nick(self) -> str:
        self.number += 1
        return f"n{self.number}"

    def somebody(self) -> tuple[Client, str]:
        return self.chance.choice(list(self.inside.values()))

    async def a_guest_joins(self) -> None:
        await self._join(await self.stack.enter_async_context(Client.connect(self.prosody)), self.new_nick())

    async def an_account_joins(self) -> None:
        user = self.chance.choice(["ann", "bob"])
        client = await self.stack.enter_async_context(Client.connect(self.prosody, user=user))
        own = [nick for other, nick in self.inside.values() if other.jid.startswith(user + "@")]
        await self._join(client, self.chance.choice([*own, self.new_nick()]))

    async def _join(self, client: Client, nick: str) -> None:
        assert (await client.join(self.room, nick=nick)).joined
        self.inside[client.jid] = (client, nick)

    async def somebody_leaves(self) -> None:
        client, nick = self.somebody()
        del self.inside[client.jid]
        await client.leave(self.room, nick)
        await client.close()

    async def somebody_breaks_off(self) -> None:
        client, _ = self.somebody()
        del self.inside[client.jid]
        await client.rst()
        await eventually(lambda: self.prosody.has_session(client.jid), False)

    async def somebody_changes_the_nick(self) -> None:
        client, nick = self.somebody()
        user = client.jid.partition("/")[0]
        own = [n for other, n in self.inside.values() if other.jid.startswith(user + "/") and n != nick]
        new = self.chance.choice([*own, self.new_nick()])
        await rename(client, self.room, new, with_x=self.chance.random() < 0.5)
        self.inside[client.jid] = (client, new)

    async def somebody_is_kicked(self) -> None:
        _, nick = self.somebody()
        await self.prosody.module(
            f'local room = muc.get_room_from_jid("{self.room}@conference.localhost")\n'
            f'room:set_role(true, room.jid .. "/{nick}", nil, "out")'
        )
        for jid, (client, other) in list(self.inside.items()):
            if other == nick:
                del self.inside[jid]
                await client.close()

    async def somebody_becomes_moderator_or_not(self) -> None:
        client, _ = self.somebody()
        affiliation = self.chance.choice(["owner", "none"])
        await self.prosody.module(
            f'local room = muc.get_room_from_jid("{self.room}@conference.localhost")\n'
            f'room:set_affiliation(true, "{client.jid.partition("/")[0]}", "{affiliation}")'
        )

    async def something_is_reloaded(self) -> None:
        await self.prosody.reload(self.chance.choice(["muc_webhook", "muc"]))

    async def the_module_is_away_for_a_moment(self) -> None:
        await self.prosody.unload()
        if self.inside:
            await self.chance.choice([self.somebody_leaves, self.somebody_breaks_off])()
        await self.prosody.load()

    async def step(self) -> None:
        joins: list[Step] = [self.a_guest_joins, self.an_account_joins]
        others: list[Step] = [
            *[self.somebody_leaves, self.somebody_breaks_off] * (2 if len(self.inside) > 6 else 1),
            *[self.somebody_changes_the_nick] * 4,
            self.somebody_is_kicked,
            self.somebody_becomes_moderator_or_not,
        ]
        rare: list[Step] = [self.something_is_reloaded, self.the_module_is_away_for_a_moment]
        kinds = [joins, others, rare] if self.inside else [joins]
        (kind,) = self.chance.choices(kinds, [3, 5, 1][: len(kinds)])
        await self.chance.choice(kind)()


async def truth(prosody: Server, room: str) -> dict[str, bool]:
    """The nicks in a room, and whether each is a moderator, as Prosody says."""
    text = await prosody.module(f"""
        local room, found = muc.get_room_from_jid("{room}@conference.localhost"), {{}}
        for nick, occupant in pairs(room and room._occupants or {{}}) do
            found[nick:match("/(.*)")] = occupant.role == "moderator"
        end
        return require "util.json".encode(found)""")
    return dict(json.loads(text))


def told(events: list[Request]) -> dict[str, bool]:
    """What the events say of who is in: the id of the join -> whether a moderator.

    Fails if they contradict themselves.
    """
    inside: dict[str, bool] = {}
    for event in events:
        body = event.body
        match event.endpoint:
            case "user-joined":
                assert body["eventId"] not in inside
                inside[body["eventId"]] = body["isModerator"]
                assert body["participants"] == len(inside)
            case "user-left":
                del inside[body["joinEventId"]]
                assert body["participants"] == len(inside)
            case "moderator-changed":
                assert inside[body["joinEventId"]] != body["isModerator"], "only real changes"
                inside[body["joinEventId"]] = body["isModerator"]
            case "room-destroyed":
                assert inside == {}, "everybody has left before"
    return inside


@pytest.mark.parametrize("seed", [1])
async def test_the_events_of_300_random_steps_say_who_is_in(start_prosody: StartProsody, room: str, seed: int) -> None:
    prosody = await start_prosody(fresh=True, options=OPTIONS, log_level="info")
    async with AsyncExitStack() as stack:
        crowd = Crowd(prosody, room, random.Random(seed), stack)
        for number in range(300):
            await crowd.step()
            if number % 10 == 0:
                await story(prosody, room)
                events = prosody.backend.first_arrivals(room)
                really = await truth(prosody, room)
                assert sorted(told(events).values()) == sorted(really.values()), f"after step {number}"
                assert len(really) == len({nick for _, nick in crowd.inside.values()})
        while crowd.inside:
            await crowd.somebody_leaves()
        sentences = await story(prosody, room)
        assert sentences[-1] == "destroyed: all_users_left"
    assert told(prosody.backend.first_arrivals(room)) == {}
