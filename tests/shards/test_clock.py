"""The clock of the engine is set. How old an answer is, is known all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.rig.backend import Backend
from tests.rig.engine import IN_CHROOT, EngineProcess
from tests.rig.wall_clock import WallClock
from tests.shards.rig import all_in_touch, shards

ANN = "ann@example.com"
FOR_TEN_SECONDS = {
    "endpoints": {"validate-access": {"allow": {"fresh": 1, "stale_while_revalidate": 0, "stale_if_error": 9}}}
}
pytestmark = pytest.mark.skipif(IN_CHROOT, reason="the library that sets the clock is not in the chroot")


@pytest.fixture
async def clocked() -> AsyncIterator[tuple[EngineProcess, WallClock]]:
    async with EngineProcess.prepared("--appendonly", "yes") as engine:
        clock = WallClock(engine.folder)
        # The allocator of the engine reads the clock before the library that sets it is ready: libc's does not.
        engine.environ = {**clock.environ, "LD_PRELOAD": clock.environ["LD_PRELOAD"] + " libc.so.6"}
        await engine.run()
        yield engine, clock


async def set_back(engine: EngineProcess, clock: WallClock) -> None:
    clock.set_ahead(-60)


async def set_back_between_two_starts(engine: EngineProcess, clock: WallClock) -> None:
    await engine.kill()
    clock.set_ahead(-60)
    await engine.run()


@pytest.mark.parametrize("change", [set_back, set_back_between_two_starts])
async def test_an_allow_is_used_on_another_shard_until_it_ends_and_not_longer(
    backend: Backend, clocked: tuple[EngineProcess, WallClock], change: object
) -> None:
    assert callable(change)
    engine, clock = clocked
    async with shards(backend, engine.url, engine.url, settings=FOR_TEN_SECONDS) as (here, there):
        for room in ("standup", "retro"):
            assert (await here.decides(room, ANN)).allowed
        await asyncio.sleep(0.3)
        before = asyncio.get_running_loop().time()
        await change(engine, clock)
        await asyncio.sleep(2.5)
        await all_in_touch(here, there)
        await here.kill()
        await backend.stop()
        assert (await there.decides("standup", ANN)).allowed
        await asyncio.sleep(before + 12.0 - asyncio.get_running_loop().time())
        assert not (await there.decides("retro", ANN)).allowed
