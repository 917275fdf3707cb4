"""What was said counts as of when it was said: after a restart, said again, and for those who were unknown."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from tests.rig.answers import allow, deny
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.sidecar import Sidecar
from tests.shards.rig import all_in_touch, in_touch, order, shards, until

ANN, BOB = "ann@example.com", "bob@example.com"
SPACE = "{prosody-sidecar}:"
LETS_ANYBODY_IN = {"endpoints": {"validate-access": {"on_unavailable": "allow"}}}


@pytest.mark.parametrize("verb", ["kick", "forget", "end"])
async def test_what_was_said_while_a_sidecar_was_away_reaches_what_it_has_on_disk(
    backend: Backend, engine: EngineProcess, verb: str
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        assert (await there.decides("standup", ANN)).allowed
        await asyncio.sleep(1.0)
        await there.kill()
        fields = {"kick": {"user": ANN}, "forget": {"user": ANN, "mode": "drop"}, "end": {}}[verb]
        await order(here, verb, room="standup", **fields)
        await backend.stop()
        await there.run()
        await until(lambda: in_touch(there))
        assert not (await there.decides("standup", ANN)).allowed


@pytest.mark.parametrize("again", ["said again to a new epoch", "written into the stream by somebody"])
async def test_an_old_change_takes_nothing_away_that_came_later(
    backend: Backend, engine: EngineProcess, again: str
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        assert (await there.decides("standup", ANN)).allowed
        await order(here, "kick", room="standup", user=ANN)
        backend.on("validate-access", deny("cancelled"), room="retro")
        assert not (await here.decides("retro", BOB)).allowed
        await asyncio.sleep(1.5)
        backend.on("validate-access", allow(), room="retro")
        await order(here, "forget", room="retro", mode="drop")
        await asyncio.sleep(1.5)
        assert (await there.decides("standup", ANN)).allowed
        assert (await there.decides("retro", BOB)).allowed
        if again.startswith("said"):
            await engine.order("FLUSHALL")
        else:
            for _, fields in await engine.order("XRANGE", SPACE + "stream", "-", "+"):
                tail = (await engine.order("XINFO", "STREAM", SPACE + "stream"))[b"last-generated-id"]
                number = int(tail.split(b"-")[0]) + 1
                now = int((await engine.order("TIME"))[0]) * 1000
                await engine.order("XADD", SPACE + "stream", f"{number}-0", "m", fields[b"m"], "at", now)
        await asyncio.sleep(2.5)
        await all_in_touch(here, there)
        await backend.stop()
        assert (await there.decides("standup", ANN)).allowed
        assert (await there.decides("retro", BOB)).allowed


async def test_who_was_kicked_or_denied_elsewhere_is_not_let_in_as_somebody_unknown(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url, settings=LETS_ANYBODY_IN) as (here, there):
        assert (await here.decides("standup", ANN)).allowed
        await order(here, "kick", room="standup", user=ANN)  # before the engine has the allow
        backend.on("validate-access", deny("cancelled"), room="retro")
        assert not (await here.decides("retro", BOB)).allowed
        await asyncio.sleep(0.5)
        await backend.stop()
        assert not (await there.decides("standup", ANN)).allowed
        await engine.kill()
        assert not (await there.decides("retro", BOB)).allowed
        assert (await there.decides("retro", "stranger@example.com")).allowed


async def test_who_was_kicked_before_anybody_was_asked_is_not_let_in_after_a_restart_with_all_else_away(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url, settings=LETS_ANYBODY_IN) as both:
        await order(both[0], "kick", room="standup", user=ANN)
        for sidecar in both:
            await until(partial(remembers_somebody, sidecar))
        await backend.stop()
        await engine.kill()
        for sidecar in both:
            await sidecar.end()
            await sidecar.run()
            assert not (await sidecar.decides("standup", ANN)).allowed
            assert (await sidecar.decides("standup", "stranger@example.com")).allowed


async def remembers_somebody(sidecar: Sidecar) -> bool:
    return await sidecar.metric("cache_entries") > 0
