"""A shard that comes to an engine, or back to it after a failover, learns what was taken away there before it came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.rig.answers import raw
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.sidecar import Sidecar
from tests.rig.toxic import Toxic
from tests.shards.rig import all_in_touch, order, shards, until

ANN = "ann@example.com"


async def forget(sidecar: Sidecar) -> None:
    await order(sidecar, "forget", room="standup", user=ANN, mode="drop")


@pytest.fixture
async def another() -> AsyncIterator[EngineProcess]:
    async with EngineProcess.start() as running:
        yield running


async def test_a_shard_with_the_wrong_engine_learns_it_when_it_has_the_right_one(
    backend: Backend, engine: EngineProcess, another: EngineProcess
) -> None:
    async with shards(backend, engine.url, another.url) as (there, here):
        assert (await here.decides("standup", ANN)).allowed
        await forget(there)
        await all_in_touch(here, there)
        await here.end()
        here.write({"shared": {"url": engine.url}})
        await here.run()
        await all_in_touch(here)
        await backend.stop()
        assert not (await here.decides("standup", ANN)).allowed


async def test_a_shard_that_was_cut_off_during_a_failover_learns_what_was_said_after_it(
    backend: Backend, engine: EngineProcess, proxy: Toxic
) -> None:
    async with shards(backend, engine.url, proxy.url) as (there, here):
        assert (await here.decides("standup", ANN)).allowed
        await asyncio.sleep(0.3)
        proxy.refuses = True
        proxy.cut()
        await engine.order("FLUSHALL")
        await until_out_of_touch(there)
        await all_in_touch(there)
        await forget(there)
        await until_out_of_touch(here)
        proxy.refuses = False
        await all_in_touch(here, there)
        await backend.stop()
        assert not (await here.decides("standup", ANN)).allowed


@pytest.mark.parametrize("denied_before", [True, False])
async def test_a_shard_that_was_cut_off_during_a_failover_knows_who_was_denied_also_where_that_may_not_be_stored(
    backend: Backend, engine: EngineProcess, proxy: Toxic, *, denied_before: bool
) -> None:
    always_asked = {"endpoints": {"validate-access": {"allow": {"fresh": 0, "stale_while_revalidate": 0}}}}
    async with shards(backend, engine.url, proxy.url, settings=always_asked) as (there, here):
        assert (await here.decides("standup", ANN)).allowed
        await asyncio.sleep(0.3)
        proxy.refuses = True
        proxy.cut()
        backend.on("validate-access", raw('{"allowed": false}', headers={"Cache-Control": "no-store"}))
        if denied_before:
            assert not (await there.decides("standup", ANN)).allowed
        await engine.order("FLUSHALL")
        await until_out_of_touch(there)
        if not denied_before:
            assert not (await there.decides("standup", ANN)).allowed
        await all_in_touch(there)
        await until_out_of_touch(here)
        await backend.stop()
        proxy.refuses = False
        await all_in_touch(here, there)

        async def is_denied() -> bool:
            """It asks the engine, and goes on alone if that takes longer than 20 ms, as on a busy machine."""
            return not (await here.decides("standup", ANN)).allowed

        await until(is_denied, 5)


async def until_out_of_touch(sidecar: Sidecar) -> None:
    """It has noticed that the engine has another epoch, or does not answer."""

    async def was_out_of_touch() -> bool:
        return any(not line["in_touch"] for line in sidecar.log("shared memory"))

    await until(was_out_of_touch)
