"""What one sidecar has learned, the others know."""

from __future__ import annotations

import asyncio

from tests.rig.answers import deny, reply
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.sidecar import Sidecar
from tests.shards.rig import all_in_touch, shards, until

ANN = "ann@example.com"


async def written(sidecar: Sidecar) -> None:
    """What it has learned is in the engine."""
    await asyncio.sleep(0.1)
    await until(lambda: _nothing_unsaid(sidecar))


async def _nothing_unsaid(sidecar: Sidecar) -> bool:
    return await sidecar.metric("shared_unsaid") == 0


async def test_what_one_has_learned_another_answers_without_the_backend(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        assert (await here.decides("standup", ANN)).allowed
        await here.configures("standup")
        await written(here)
        asked = len(backend.requests)
        assert (await there.decides("standup", ANN)).allowed
        assert (await there.configures("standup")).document["meetingTitle"] == "standup"
        assert len(backend.requests) == asked


async def test_a_deny_on_one_shard_is_the_answer_of_all_while_the_backend_is_away(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        assert (await here.decides("standup", ANN)).allowed
        assert (await there.decides("standup", ANN)).allowed
        backend.on("validate-access", deny("cancelled"))
        code, _ = await there.command("purge", "--user", ANN)
        assert code == 0
        assert not (await there.decides("standup", ANN)).allowed
        await written(there)
        await asyncio.sleep(0.1)
        await backend.stop()
        answer = await here.decides("standup", ANN)
        assert not answer.allowed


async def test_who_must_wait_in_the_lobby_on_one_shard_does_so_on_all_without_backend_and_engine(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        assert "requireLobby" not in (await here.decides("standup", ANN)).document
        backend.on("validate-access", reply({"allowed": True, "requireLobby": True}))
        code, _ = await there.command("forget", "--user", ANN)
        assert code == 0
        assert (await there.decides("standup", ANN)).document["requireLobby"]
        await written(there)
        await asyncio.sleep(0.2)
        await engine.kill()
        await backend.stop()
        assert (await here.decides("standup", ANN)).document["requireLobby"]


async def test_who_is_known_to_a_shard_that_was_killed_is_let_in_by_another_without_the_backend(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        for number in range(20):
            assert (await here.decides("standup", f"user{number}@example.com")).allowed
        await until(lambda: _has_answers(engine, 20))
        await here.kill()
        await backend.stop()
        for number in range(20):
            assert (await there.decides("standup", f"user{number}@example.com")).allowed
        assert not (await there.decides("standup", "stranger@example.com")).allowed


async def _has_answers(engine: EngineProcess, number: int) -> bool:
    return len(await engine.order("KEYS", "*answer*")) == number


async def test_a_purge_reaches_all(backend: Backend, engine: EngineProcess) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        for sidecar in (here, there):
            assert (await sidecar.decides("standup", ANN)).allowed
        await written(here)
        code, _ = await here.command("purge", "--room", "standup")
        assert code == 0
        await asyncio.sleep(0.2)
        await backend.stop()
        for sidecar in (here, there):
            assert not (await sidecar.decides("standup", ANN)).allowed


async def test_a_config_with_a_password_is_not_shared(backend: Backend, engine: EngineProcess) -> None:
    backend.on("room-created", reply({"password": "hush"}))
    async with shards(backend, engine.url, engine.url) as (here, there):
        await here.configures("standup")
        await written(here)
        assert (await there.configures("standup")).document["password"] == "hush"
        assert len(backend.asked("room-created")) == 2


async def test_a_deny_that_all_know_is_said_again_by_one(backend: Backend, engine: EngineProcess) -> None:
    backend.on("validate-access", deny("cancelled"))
    async with shards(backend, *[engine.url] * 3) as sidecars:
        for number in range(20):
            for sidecar in sidecars:
                assert not (await sidecar.decides("standup", f"user{number}@example.com")).allowed
        await all_in_touch(*sidecars)
        await engine.order("FLUSHALL")
        await until(lambda: _has_answers(engine, 20))
        await asyncio.sleep(2.0)
        await all_in_touch(*sidecars)
        messages = await engine.order("XLEN", "{prosody-sidecar}:stream")
        assert messages == 1 + 20
