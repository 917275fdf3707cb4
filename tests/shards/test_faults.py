"""Whatever the engine does, users are answered as without it, and who is denied stays out."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.rig.answers import allow, deny
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.toxic import Toxic
from tests.shards.rig import in_touch, shards, until

ANN = "ann@example.com"
BOB = "bob@example.com"
LONGEST = 0.5
"""Seconds for an answer on a busy machine, with a backend that answers at once."""


async def stop(engine: EngineProcess, proxy: Toxic) -> None:
    engine.signal(signal.SIGSTOP)


async def kill(engine: EngineProcess, proxy: Toxic) -> None:
    await engine.kill()


async def silence(engine: EngineProcess, proxy: Toxic) -> None:
    proxy.silent = True


async def cut(engine: EngineProcess, proxy: Toxic) -> None:
    proxy.refuses = True
    proxy.cut()


async def delay(engine: EngineProcess, proxy: Toxic) -> None:
    proxy.delay = 0.3


async def empty(engine: EngineProcess, proxy: Toxic) -> None:
    await engine.order("FLUSHALL")


async def sleep(engine: EngineProcess, proxy: Toxic) -> None:
    asyncio.get_running_loop().create_task(engine.order("DEBUG", "SLEEP", "3"))
    await asyncio.sleep(0.1)


async def forget_the_script(engine: EngineProcess, proxy: Toxic) -> None:
    await engine.order("SCRIPT", "FLUSH")


async def be_a_replica(engine: EngineProcess, proxy: Toxic) -> None:
    await engine.order("REPLICAOF", "127.0.0.1", "1")


FAULTS = (stop, kill, silence, cut, delay, empty, sleep, forget_the_script, be_a_replica)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_with_a_fault_everybody_is_answered_as_without_the_engine(
    backend: Backend, engine: EngineProcess, proxy: Toxic, fault: object
) -> None:
    assert callable(fault)
    async with shards(backend, proxy.url, proxy.url) as (here, there):
        assert (await here.decides("standup", ANN)).allowed
        backend.on("validate-access", deny("cancelled"), room="retro")
        assert not (await here.decides("retro", BOB)).allowed
        await asyncio.sleep(0.3)
        await fault(engine, proxy)
        for sidecar in (here, there):
            for number in range(5):
                answer = await sidecar.decides("standup", f"user{number}@example.com")
                assert answer.allowed
                assert answer.seconds < LONGEST
            assert not (await sidecar.decides("retro", BOB)).allowed
        await backend.stop()
        assert (await here.decides("standup", ANN)).allowed
        assert not (await here.decides("retro", BOB)).allowed
        assert not (await there.decides("standup", "stranger@example.com")).allowed
        if engine.process is not None:
            engine.signal(signal.SIGCONT) if engine.process.returncode is None else None
        proxy.silent = False


async def test_who_was_denied_while_a_shard_was_cut_off_is_asked_about_there_within_five_seconds(
    backend: Backend, engine: EngineProcess, proxy: Toxic
) -> None:
    settings = {"endpoints": {"validate-access": {"allow": {"fresh": 60}}}}
    async with shards(backend, engine.url, proxy.url, settings=settings) as (here, there):
        assert (await there.decides("standup", ANN)).allowed
        proxy.refuses = True
        proxy.cut()
        backend.on("validate-access", deny("cancelled"))
        await here.command("purge", "--user", ANN)
        assert not (await here.decides("standup", ANN)).allowed
        begun = time.monotonic()
        await until(lambda: _is_denied(there))
        assert time.monotonic() - begun < 6.5
        assert not await in_touch(there)


async def _is_denied(sidecar: object) -> bool:
    return not (await sidecar.decides("standup", ANN)).allowed  # type: ignore[attr-defined]


async def test_a_purge_that_the_engine_could_not_take_is_said_when_it_is_back(
    backend: Backend, engine: EngineProcess, proxy: Toxic
) -> None:
    async with shards(backend, proxy.url, engine.url) as (here, there):
        assert (await there.decides("standup", ANN)).allowed
        proxy.refuses = True
        proxy.cut()
        await here.command("purge", "--user", ANN)
        assert (await there.decides("standup", ANN)).allowed
        proxy.refuses = False
        await until(lambda: in_touch(here))
        await asyncio.sleep(1.0)
        await backend.stop()
        assert not (await there.decides("standup", ANN)).allowed


async def test_denies_are_said_again_to_an_engine_that_was_restarted_empty(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (here, there):
        backend.on("validate-access", deny("cancelled"))
        assert not (await here.decides("standup", BOB)).allowed
        backend.on("validate-access", allow())
        await asyncio.sleep(0.3)
        await engine.kill()
        await engine.run()
        await until(lambda: in_touch(here), 15)
        await until(lambda: in_touch(there), 15)
        await until(lambda: _has_answer(engine))
        asked = len(backend.asked("validate-access"))
        await backend.stop()
        assert not (await there.decides("standup", BOB)).allowed
        assert len(backend.asked("validate-access")) == asked


async def _has_answer(engine: EngineProcess) -> bool:
    return bool(await engine.order("KEYS", "*answer*"))


async def test_after_a_stale_replica_is_promoted_the_deny_that_it_lacks_is_known_to_all(
    backend: Backend, engine: EngineProcess, proxy: Toxic
) -> None:
    async with engine.replica() as replica, shards(backend, proxy.url, proxy.url) as (here, there):
        for sidecar in (here, there):
            assert (await sidecar.decides("standup", ANN)).allowed
        await asyncio.sleep(0.3)
        replica.signal(signal.SIGSTOP)  # from here on it follows no more
        await here.command("purge", "--user", ANN)
        backend.on("validate-access", deny("cancelled"))
        assert not (await here.decides("standup", ANN)).allowed
        await engine.kill()
        replica.signal(signal.SIGCONT)
        await replica.order("REPLICAOF", "NO", "ONE")
        proxy.to = replica.port
        proxy.cut()
        await until(lambda: in_touch(here), 15)
        await until(lambda: in_touch(there), 15)
        await asyncio.sleep(0.5)
        await backend.stop()
        assert not (await there.decides("standup", ANN)).allowed
        assert not (await here.decides("standup", ANN)).allowed
