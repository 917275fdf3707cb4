"""An order reaches the shard that has the room, wherever it was sent and whatever breaks on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.module import Module
from tests.rig.sidecar import Sidecar
from tests.rig.toxic import Toxic
from tests.shards.rig import in_touch, order, shards, until

ANN = "ann@example.com"
ABSENT = {"status": "absent"}
DONE = {
    "kick": {"status": "done", "kicked": 1},
    "end": {"status": "done", "ended": True},
    "refresh": {"status": "done", "refreshed": True},
}
ANSWERS: dict[str, Any] = {"kick": {"kicked": 1}, "end": {"ended": True}, "refresh": {"refreshed": True}}
FIELDS: dict[str, Any] = {"kick": {"user": ANN}, "end": {}, "refresh": {}}


@asynccontextmanager
async def linked(module: Module, sidecar: Sidecar) -> AsyncIterator[None]:
    async with module.linked(sidecar):
        await until(lambda: _has_links(sidecar, 1))
        yield


async def _has_links(sidecar: Sidecar, number: int) -> bool:
    return await sidecar.metric("links") == number


async def _waits(sidecar: Sidecar, number: int) -> bool:
    return await sidecar.metric("orders_waiting") == number


@pytest.mark.parametrize("verb", list(DONE))
async def test_an_order_is_carried_out_by_the_shard_that_has_the_room(
    backend: Backend, engine: EngineProcess, verb: str
) -> None:
    here, there = Module(ABSENT), Module(DONE[verb])
    async with shards(backend, engine.url, engine.url, engine.url) as (first, second, third), AsyncExitStack() as links:
        for module, sidecar in ((here, first), (there, second), (Module(ABSENT), third)):
            await links.enter_async_context(linked(module, sidecar))
        assert await order(first, verb, room="standup", **FIELDS[verb]) == (200, ANSWERS[verb])
        assert [each["verb"] for each in there.orders] == [verb]
        assert await engine.order("HLEN", "{prosody-sidecar}:orders") == 0


async def test_who_is_in_a_room_of_another_shard_is_known(backend: Backend, engine: EngineProcess) -> None:
    here, there = Module(ABSENT), Module({"status": "done", "occupants": [{"nick": "Ann"}]})
    async with (
        shards(backend, engine.url, engine.url) as (first, second),
        linked(here, first),
        linked(there, second),
    ):
        code, printed = await first.command("who", "standup", "--json")
        assert code == 0
        assert "Ann" in printed


async def test_a_room_that_is_nowhere_is_not_found(backend: Backend, engine: EngineProcess) -> None:
    async with (
        shards(backend, engine.url, engine.url) as (first, second),
        linked(Module(ABSENT), first),
        linked(Module(ABSENT), second),
    ):
        assert (await order(first, "end", room="standup"))[0] == 404


async def test_an_order_taken_while_the_engine_is_away_survives_a_kill_and_is_carried_out_once(
    backend: Backend, engine: EngineProcess, proxy: Toxic
) -> None:
    there = Module(DONE["kick"])
    async with shards(backend, proxy.url, engine.url) as (first, second), linked(there, second):
        assert (await second.decides("standup", ANN)).allowed
        proxy.refuses = True
        proxy.cut()
        assert (await order(first, "kick", "key-1", room="standup", user=ANN))[0] == 202
        await first.kill()
        proxy.refuses = False
        await first.run()
        await there.until(1)
        await until(lambda: _waits(first, 0))
        assert await order(first, "kick", "key-1", room="standup", user=ANN) == (200, {"kicked": 1})
        assert len(there.carried_out) == 1
        await backend.stop()
        assert not (await second.decides("standup", ANN)).allowed


async def test_a_shard_that_is_killed_while_it_carries_out_an_order_says_the_outcome_after_its_start(
    backend: Backend, engine: EngineProcess
) -> None:
    there = Module(DONE["kick"])
    there.silent = True
    async with shards(backend, engine.url, engine.url) as (first, second):
        async with linked(there, second):
            taken = asyncio.ensure_future(order(first, "kick", "key-1", room="standup", user=ANN))
            await there.until(1)
            await second.kill()
        assert (await taken)[0] == 202
        there.silent = False
        await second.run()
        async with linked(there, second):
            await until(lambda: _waits(first, 0))
        assert await order(first, "kick", "key-1", room="standup", user=ANN) == (200, {"kicked": 1})
        assert len(there.carried_out) == 1


async def test_orders_of_two_sidecars_reach_a_room_in_the_order_in_which_they_were_answered(
    backend: Backend, engine: EngineProcess
) -> None:
    there = Module(DONE["kick"])
    async with shards(backend, engine.url, engine.url, engine.url) as (first, second, third), linked(there, third):
        for number in range(10):
            sidecar = (first, second)[number % 2]
            assert (await order(sidecar, "kick", room="standup", user=f"user{number}@example.com"))[0] == 200
        assert [each["user"] for each in there.orders] == [f"user{number}@example.com" for number in range(10)]


@pytest.mark.parametrize("fault", ["emptied", "restarted"])
async def test_an_order_that_waits_is_carried_out_although_the_engine_has_lost_it(
    backend: Backend, engine: EngineProcess, fault: str
) -> None:
    there = Module(DONE["end"])
    async with shards(backend, engine.url, engine.url) as (first, second):
        assert (await order(first, "end", room="standup"))[0] == 202
        if fault == "emptied":
            await engine.order("FLUSHALL")
        else:
            await engine.kill()
            await engine.run()
        for sidecar in (first, second):
            await until(lambda sidecar=sidecar: in_touch(sidecar), 15)  # type: ignore[misc]
        async with linked(there, second):
            await until(lambda: _waits(first, 0))
        assert len(there.carried_out) == 1


async def test_a_forget_that_the_engine_could_not_take_is_pending_survives_a_kill_and_reaches_all(
    backend: Backend, engine: EngineProcess, proxy: Toxic
) -> None:
    async with shards(backend, proxy.url, engine.url) as (first, second):
        assert (await second.decides("standup", ANN)).allowed
        proxy.refuses = True
        proxy.cut()
        assert await order(first, "forget", "key-1", user=ANN, mode="drop") == (202, {"pending": True})
        assert "the other shards hear of it when" in (await first.command("purge", "--room", "retro"))[1]
        await first.kill()
        assert (await second.decides("standup", ANN)).allowed
        proxy.refuses = False
        await first.run()
        await until(lambda: _waits(first, 0))
        assert await order(first, "forget", "key-1", user=ANN, mode="drop") == (200, {"forgotten": 0})
        await backend.stop()
        await until(lambda: _is_refused(second))


async def _is_refused(sidecar: Sidecar) -> bool:
    return not (await sidecar.decides("standup", ANN)).allowed


async def test_a_purge_that_was_said_is_not_said_again_after_a_restart(backend: Backend, engine: EngineProcess) -> None:
    async with shards(backend, engine.url, engine.url) as (first, second):
        await first.command("purge", "--user", ANN)
        assert (await second.decides("standup", ANN)).allowed
        assert await first.stop() == 0
        await first.run()
        await until(lambda: in_touch(first))
        await asyncio.sleep(0.3)
        await backend.stop()
        assert (await second.decides("standup", ANN)).allowed


async def test_a_purge_is_said_again_after_a_restart_to_an_engine_that_has_lost_it(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (first, second):
        await first.command("purge", "--user", ANN)
        await first.kill()
        await engine.kill()
        await engine.run()
        await until(lambda: in_touch(second), 15)
        assert (await second.decides("standup", ANN)).allowed
        await first.run()
        await until(lambda: in_touch(first))
        await asyncio.sleep(0.3)
        await backend.stop()
        assert not (await second.decides("standup", ANN)).allowed


async def test_a_key_that_was_sent_with_another_order_to_another_sidecar_is_refused(
    backend: Backend, engine: EngineProcess
) -> None:
    async with (
        shards(backend, engine.url, engine.url) as (first, second),
        linked(Module(DONE["kick"]), first),
        linked(Module(DONE["kick"]), second),
    ):
        assert (await order(first, "kick", "key-1", room="standup", user=ANN))[0] == 200
        assert (await order(second, "kick", "key-1", room="standup", user="bob@example.com"))[0] == 422
        assert (await order(second, "kick", "key-1", room="standup", user=ANN))[0] == 200


async def test_an_order_that_was_sent_to_two_sidecars_ends_when_the_last_shard_is_back(
    backend: Backend, engine: EngineProcess
) -> None:
    async with (
        shards(backend, engine.url, engine.url, engine.url) as (first, second, third),
        linked(Module(ABSENT), first),
        linked(Module(ABSENT), second),
    ):
        await third.kill()
        for sidecar in (first, second):
            assert (await order(sidecar, "end", "key-1", room="standup"))[0] == 202
        await third.run()
        async with linked(Module(ABSENT), third):
            for sidecar in (first, second):
                await until(partial(_waits, sidecar, 0))
                assert (await order(sidecar, "end", "key-1", room="standup"))[0] == 404
