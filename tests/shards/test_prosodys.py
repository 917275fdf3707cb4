"""Three shards, each a real Prosody and a real sidecar, with one backend and an engine that has a replica."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.prosody.ordering import put_out
from tests.rig.answers import allow_if
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.prosody import Prosody, why_missing
from tests.rig.sidecar import Sidecar
from tests.rig.toxic import Toxic
from tests.rig.xmpp import Client, JoinResult
from tests.shards.rig import all_in_touch, order, shards, until

VERSIONS = ("0.12", "13.0", "0.12")
ROOM = "standup"
KNOWN = [f"ann-{number}" for number in range(8)]
DENIED, KICKED = "dan", "kim"
SHORT = {"endpoints": {"validate-access": {"allow": {"fresh": 1, "stale_while_revalidate": 0}}}}


@dataclass
class Shard:
    """A Prosody and its sidecar."""

    prosody: Prosody
    sidecar: Sidecar

    async def joins(self, user: str) -> JoinResult:
        """This user joins, and leaves again."""
        async with Client.connect(self.prosody, user=user) as client:
            result = await client.join(ROOM, nick=user)
            if result.joined:
                await client.leave(ROOM, nick=user)
            return result

    async def let_in(self, users: Iterable[str], tries: int = 6) -> set[str]:
        """Who of these can join, all at the same time. Who is refused tries again after a second: on a busy machine the
        engine may be slower than 20 ms, and then it is left alone for a second."""
        wanted, joined = set(users), set[str]()
        for number in range(tries):
            await asyncio.sleep(1.1 if number else 0)
            named = sorted(wanted - joined)
            results = await asyncio.gather(*(self.joins(user) for user in named))
            joined |= {user for user, result in zip(named, results, strict=True) if result.joined}
        return joined


@pytest.fixture
async def invited(backend: Backend) -> set[str]:
    """Who is invited, as the backend says."""
    users = {*KNOWN, DENIED, KICKED}
    backend.on("validate-access", allow_if(lambda body: body["userJid"].partition("@")[0] in users))
    return users


@pytest.fixture
async def replica(engine: EngineProcess) -> AsyncIterator[EngineProcess]:
    async with engine.replica() as running:
        yield running


@pytest.fixture
async def three(
    backend: Backend, proxy: Toxic, replica: EngineProcess, invited: set[str]
) -> AsyncIterator[list[Shard]]:
    if missing := [why for version in sorted(set(VERSIONS)) if (why := why_missing(version))]:
        pytest.skip(missing[0])
    async with AsyncExitStack() as stack:
        sidecars = await stack.enter_async_context(shards(backend, *[proxy.url] * len(VERSIONS), settings=SHORT))
        started = []
        for version, sidecar in zip(VERSIONS, sidecars, strict=True):
            secret = Path(sidecar.config["listen"]["token_file"]).read_text()
            server = Prosody.start(
                version=version, webhook_url=sidecar.webhooks, options={"muc_webhook_secret": secret}
            )
            started.append(Shard(await stack.enter_async_context(server), sidecar))
        for shard in started:
            await until(lambda sidecar=shard.sidecar: _linked(sidecar))  # type: ignore[misc]
        yield started


async def learn(shard: Shard, engine: EngineProcess, users: list[str]) -> None:
    """These users join here, until the engine knows all of them, and the room's config."""

    async def are_known() -> bool:
        for user in users:
            assert (await shard.joins(user)).joined
        await asyncio.sleep(0.3)
        return len(await engine.order("KEYS", "*:answer:*")) > len(users)

    await until(are_known, 40.0)


async def _linked(sidecar: Sidecar) -> bool:
    return await sidecar.metric("links") == 1


async def test_the_rooms_of_a_shard_that_was_killed_are_taken_up_by_the_others_without_the_backend(
    backend: Backend, engine: EngineProcess, three: list[Shard], invited: set[str]
) -> None:
    first, *others = three
    await learn(first, engine, [*KNOWN, DENIED, KICKED])
    assert (await order(first.sidecar, "kick", room=ROOM, user=f"{KICKED}@auth.localhost"))[0] in (200, 404)
    await order(first.sidecar, "forget", user=f"{DENIED}@auth.localhost")
    invited.discard(DENIED)
    assert not (await first.joins(DENIED)).joined
    await all_in_touch(*(shard.sidecar for shard in three))
    await asyncio.sleep(1.0)

    await first.sidecar.kill()
    await first.prosody.stop()
    await backend.stop()

    for shard in others:
        assert await shard.let_in([*KNOWN, DENIED, KICKED, "stranger"]) == set(KNOWN)
        refused = await shard.joins(DENIED)
        assert str(refused.error).endswith("/not-allowed")
        config = (await shard.joins(KNOWN[0])).config
        assert config is not None
        assert config["meetingTitle"] == ROOM


async def test_after_a_failover_to_the_replica_a_shard_takes_up_the_rooms_of_another(
    backend: Backend, engine: EngineProcess, replica: EngineProcess, proxy: Toxic, three: list[Shard]
) -> None:
    first, *others = three
    await learn(first, engine, KNOWN)
    await all_in_touch(first.sidecar)
    await asyncio.sleep(1.0)
    await engine.kill()
    await replica.order("REPLICAOF", "NO", "ONE")
    proxy.to = replica.port
    proxy.cut()
    await first.sidecar.kill()
    await backend.stop()
    await asyncio.sleep(3.0)  # until they have noticed
    await all_in_touch(*(shard.sidecar for shard in others))
    for shard in others:
        assert await shard.let_in([*KNOWN, "stranger"]) == set(KNOWN)


async def test_orders_reach_the_users_of_another_shard(three: list[Shard]) -> None:
    here, *others = three
    for shard in others:
        async with (
            Client.connect(shard.prosody, user="ann-0") as ann,
            Client.connect(shard.prosody, user="ann-1") as bea,
        ):
            assert (await ann.join(ROOM, nick="ann")).joined
            assert (await bea.join(ROOM, nick="bea")).joined
            code, printed = await here.sidecar.command("who", ROOM, "--json")
            assert (code, {each["nick"] for each in json.loads(printed)["occupants"]}) == (0, {"ann", "bea"})
            kick = {"room": ROOM, "user": "ann-0@auth.localhost", "reason": "Not invited"}
            assert await order(here.sidecar, "kick", **kick) == (200, {"kicked": 1})
            assert await put_out(ann, ROOM) == ({"307"}, "Not invited")
            assert await order(here.sidecar, "end", room=ROOM) == (200, {"ended": True})
            await put_out(bea, ROOM)
            assert (await order(here.sidecar, "end", room=ROOM))[0] == 404
