"""The shards know each other by name, whatever happens to the engine, and notice what keeps them apart."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.module import Module
from tests.rig.sidecar import Sidecar
from tests.rig.toxic import Toxic
from tests.shards.rig import all_in_touch, in_touch, order, shard, shards, until, write_secret
from tests.shards.test_orders import ABSENT, DONE, linked

PROCESSES = "{prosody-sidecar}:processes"


async def _reasons(sidecar: Sidecar) -> str:
    _, printed = await sidecar.command("status", "--json")
    return " ".join(json.loads(printed)["reasons"])


async def _strangers(sidecar: Sidecar, number: int) -> bool:
    return await sidecar.metric("shared_strangers") == number


async def test_a_shard_that_the_engine_has_forgotten_still_counts_as_away(
    backend: Backend, engine: EngineProcess, proxy: Toxic
) -> None:
    there = Module(DONE["kick"])
    async with (
        shards(backend, engine.url, engine.url, proxy.url) as (first, second, third),
        linked(Module(ABSENT), first),
        linked(Module(ABSENT), second),
        linked(there, third),
    ):
        proxy.refuses = True
        proxy.cut()
        await engine.order("FLUSHALL")
        for sidecar in (first, second):
            await until(lambda sidecar=sidecar: in_touch(sidecar), 15)  # type: ignore[misc]
        assert (await order(first, "kick", room="standup", user="ann@example.com"))[0] == 202
        proxy.refuses = False
        await there.until(1)


async def test_a_shard_that_the_engine_has_forgotten_counts_as_away_also_after_a_restart(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (first, second), linked(Module(ABSENT), first):
        await second.end()
        await first.kill()
        await engine.order("FLUSHALL")
        await first.run()
        await until(lambda: in_touch(first))
        async with linked(Module(ABSENT), first):
            assert (await order(first, "kick", room="standup", user="ann@example.com"))[0] == 202


async def test_of_two_sidecars_with_one_name_the_younger_takes_a_new_name_and_keeps_it(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url, engine.url) as (first, second):
        for sidecar in (first, second):
            await sidecar.end()
        shutil.rmtree(second.folder / "state")
        shutil.copytree(first.folder / "state", second.folder / "state", ignore=shutil.ignore_patterns("*.sock"))
        await engine.order("FLUSHALL")
        for sidecar in (first, second):
            await sidecar.run()
        await until(lambda: _are_named(engine, 2))
        assert "another sidecar has the name of this shard" in second.output()
        assert "another sidecar has the name of this shard" not in first.output()
        for command in ("status", "doctor"):
            _, printed = await second.command(command)
            assert "its state_dir was copied" in " ".join(printed.split())
        named = await _names(engine)
        await second.end()
        await second.run()
        await until(lambda: in_touch(second))
        assert await _names(engine) == named


async def test_a_copy_does_not_say_that_a_room_is_nowhere_which_the_shard_may_have_whose_name_it_has(
    backend: Backend, engine: EngineProcess
) -> None:
    elsewhere = engine.url.replace("/0", "/1")
    async with (
        shards(backend, engine.url, engine.url, elsewhere) as (first, with_the_rooms, copy),
        linked(Module(ABSENT), first),
    ):
        for sidecar in (with_the_rooms, copy):
            await sidecar.end()
        shutil.rmtree(copy.folder / "state")
        shutil.copytree(with_the_rooms.folder / "state", copy.folder / "state", ignore=shutil.ignore_patterns("*.sock"))
        copy.write({"shared": {"url": engine.url}})
        await with_the_rooms.run()  # its Prosody is away
        await all_in_touch(with_the_rooms)
        await copy.run()
        async with linked(Module(ABSENT), copy):
            answers: list[asyncio.Future[tuple[int, object]]] = []
            while "another sidecar has the name of this shard" not in copy.output():
                kick = order(first, "kick", room=f"room{len(answers)}", user="ann@example.com")
                answers.append(asyncio.ensure_future(kick))
                await asyncio.sleep(0.1)
            assert {(await answer)[0] for answer in answers} == {202}


async def _names(engine: EngineProcess) -> set[Any]:
    return set(await engine.order("HKEYS", PROCESSES))


async def _are_named(engine: EngineProcess, number: int) -> bool:
    return len(await _names(engine)) == number


async def test_sidecars_with_another_key_are_seen_until_they_have_the_same(
    backend: Backend, engine: EngineProcess
) -> None:
    async with shards(backend, engine.url) as (first,):
        write_secret(first.folder / "wrong", "f" * 32)
        wrong = {"key_file": str(first.folder / "wrong")}
        async with shard(backend, engine.url, shared=wrong) as second:
            for sidecar in (first, second):
                await until(lambda sidecar=sidecar: _strangers(sidecar, 1), 15)  # type: ignore[misc]
                assert "shared.key_file" in await _reasons(sidecar)
                assert any("shared.key_file" in line["event"] for line in sidecar.alarms())
            (first.folder / "wrong").write_text((first.folder / "key").read_text())
            await second.end()
            await second.run()
            await until(lambda: in_touch(second))
            assert await _strangers(second, 0)
            assert "shared.key_file" not in await _reasons(second)


async def test_sidecars_with_other_domains_are_seen(backend: Backend, engine: EngineProcess) -> None:
    domains = {"muc_domains": ["conference.example.org", "conference.v1.example.org"]}
    async with shards(backend, engine.url) as (first,), shard(backend, engine.url, shared=domains) as second:
        for sidecar in (first, second):
            await until(lambda sidecar=sidecar: _strangers(sidecar, 1), 15)  # type: ignore[misc]
