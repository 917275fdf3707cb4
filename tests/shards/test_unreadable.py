"""Somebody else has written into the engine's keys. What cannot be read is lost there, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from tests.rig.answers import deny
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.sidecar import Sidecar
from tests.shards.rig import all_in_touch, order, shards, until

ANN, BOB = "ann@example.com", "bob@example.com"
SPACE = "{prosody-sidecar}:"
Damage = Callable[[EngineProcess, str], Awaitable[None]]
HIGHEST = "18446744073709551615-0"


REPLACE = """
redis.call('DEL', KEYS[1])
return redis.call(unpack(ARGV))
"""
"""In one step: a sidecar writes some of these keys all the time."""


async def becomes_a_list(engine: EngineProcess, pattern: str) -> None:
    for key in await engine.order("KEYS", SPACE + pattern):
        await engine.order("EVAL", REPLACE, 1, key, "LPUSH", key, "x")


async def has_other_fields(engine: EngineProcess, pattern: str) -> None:
    for key in await engine.order("KEYS", SPACE + pattern):
        fields = ("d", "x", "waits", "x", "v", "deny", "c", "x")
        await engine.order("EVAL", REPLACE, 1, key, "HSET", key, *fields)


async def has_a_message(engine: EngineProcess, number: str) -> None:
    await engine.order("XADD", SPACE + "stream", number, "foo", "bar")


DAMAGE: list[tuple[Damage, str]] = [
    (becomes_a_list, "answer:*"),
    (becomes_a_list, "fence:*"),
    (becomes_a_list, "members"),
    (becomes_a_list, "processes"),
    (becomes_a_list, "orders"),
    (becomes_a_list, "changes"),
    (becomes_a_list, "generation"),
    (becomes_a_list, "stream"),
    (has_other_fields, "answer:*"),
    (has_other_fields, "fence:*"),
    (has_other_fields, "orders"),
    (has_a_message, "*"),
    (has_a_message, HIGHEST),
]


async def test_keys_that_cannot_be_read_stop_nothing(backend: Backend, engine: EngineProcess) -> None:
    async with shards(backend, engine.url, engine.url, settings={"breaker": {"open_for": 0.2}}) as (here, there):
        await order(here, "end", room="nowhere")
        for number, (damage, what) in enumerate(DAMAGE):
            case, room, other = f"{damage.__qualname__} {what}", f"room{number}", f"other{number}"
            await until(partial(lets_in, there, room))
            assert (await here.decides(room, ANN)).allowed, case
            backend.on("validate-access", deny("cancelled"), room=other)
            assert not (await here.decides(other, BOB)).allowed, case
            await all_in_touch(here, there)
            await damage(engine, what)
            await asyncio.sleep(1.2)  # all have met it before anything is said
            await here.command("forget", "--room", room)
            backend.on("validate-access", deny("cancelled"), room=room)
            assert not (await here.decides(room, ANN)).allowed, case
            await asyncio.sleep(1.2)
            await all_in_touch(here, there)
            await backend.stop()
            assert not (await there.decides(room, ANN)).allowed, case
            assert not (await there.decides(other, BOB)).allowed, case
            await backend.listen()


async def lets_in(sidecar: Sidecar, room: str) -> bool:
    return bool((await sidecar.decides(room, ANN)).allowed)
