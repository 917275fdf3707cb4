"""Somebody else has written into the engine's keys. What cannot be read is lost there, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest

from tests.rig.answers import allow, deny
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.shards.rig import all_in_touch, order, shards

ANN, BOB = "ann@example.com", "bob@example.com"
SPACE = "{prosody-sidecar}:"
HIGHEST = "18446744073709551615-0"


async def becomes_a_list(engine: EngineProcess, pattern: str) -> None:
    for key in await engine.order("KEYS", SPACE + pattern):
        await engine.order("DEL", key)
        await engine.order("LPUSH", key, "x")


async def has_other_fields(engine: EngineProcess, pattern: str) -> None:
    for key in await engine.order("KEYS", SPACE + pattern):
        await engine.order("DEL", key)
        await engine.order("HSET", key, "d", "x", "waits", "x", "v", "deny", "c", "x")


async def has_a_message(engine: EngineProcess, number: str) -> None:
    await engine.order("XADD", SPACE + "stream", number, "foo", "bar")


DAMAGE = [
    (becomes_a_list, "answer:*"),
    (becomes_a_list, "fence:*"),
    (becomes_a_list, "members"),
    (becomes_a_list, "processes"),
    (becomes_a_list, "orders"),
    (becomes_a_list, "generation"),
    (becomes_a_list, "stream"),
    (has_other_fields, "answer:*"),
    (has_other_fields, "fence:*"),
    (has_other_fields, "orders"),
    (has_a_message, "*"),
    (has_a_message, HIGHEST),
]


@pytest.mark.parametrize(("damage", "what"), DAMAGE, ids=[f"{each.__name__} {what}" for each, what in DAMAGE])
async def test_a_key_that_cannot_be_read_stops_nothing(
    backend: Backend, engine: EngineProcess, damage: object, what: str
) -> None:
    assert callable(damage)
    async with shards(backend, engine.url, engine.url) as (here, there):
        for sidecar in (here, there):
            assert (await sidecar.decides("standup", ANN)).allowed
        backend.on("validate-access", deny("cancelled"), room="retro")
        assert not (await here.decides("retro", BOB)).allowed
        await order(here, "end", room="nowhere")
        await asyncio.sleep(0.3)
        await damage(engine, what)
        await asyncio.sleep(1.2)  # all have met it before anything is said
        await here.command("forget", "--room", "standup")
        backend.on("validate-access", deny("cancelled"))
        assert not (await here.decides("standup", ANN)).allowed
        await asyncio.sleep(1.5)
        await all_in_touch(here, there)
        await order(here, "end", room="nowhere")
        await backend.stop()
        assert not (await there.decides("standup", ANN)).allowed
        assert not (await there.decides("retro", BOB)).allowed
        await backend.listen()
        backend.on("validate-access", allow())
        assert (await there.decides("standup", "carl@example.com")).allowed
