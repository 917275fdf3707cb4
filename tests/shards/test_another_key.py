"""One sidecar had another key for a while. What was said meanwhile is heard when all have the same."""

from __future__ import annotations

import asyncio

import pytest

from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.sidecar import Sidecar
from tests.shards.rig import KEY, all_in_touch, order, shards, until, write_secret

ANN = "ann@example.com"


async def restart_with(sidecar: Sidecar, key: str) -> None:
    write_secret(sidecar.folder / "key", key)
    await sidecar.end()
    await sidecar.run()
    await all_in_touch(sidecar)


async def has_nobody_with_another_key(sidecar: Sidecar) -> bool:
    return await sidecar.metric("shared_strangers") == 0


@pytest.mark.parametrize("by", ["the one", "the other"])
async def test_what_was_said_while_the_keys_differed_is_heard_when_they_are_the_same(
    backend: Backend, engine: EngineProcess, by: str
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        for sidecar in (here, there):
            assert (await sidecar.decides("standup", ANN)).allowed
        await asyncio.sleep(1.0)
        await restart_with(there, KEY[::-1])
        says, hears = (here, there) if by == "the one" else (there, here)
        await order(says, "forget", room="standup", user=ANN, mode="drop")
        await asyncio.sleep(6.0)
        await backend.stop()
        assert (await hears.decides("standup", ANN)).allowed
        await restart_with(there, KEY)
        await until(lambda: has_nobody_with_another_key(here), 40)
        assert not (await hears.decides("standup", ANN)).allowed
