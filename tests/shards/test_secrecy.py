"""The engine gets nothing that it can read, and nothing that counts for others than those who wrote it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from tests.rig.answers import deny, reply
from tests.rig.backend import Backend
from tests.rig.engine import EngineProcess
from tests.rig.module import Module
from tests.rig.sidecar import Sidecar
from tests.shards.engine_faults import as_allow
from tests.shards.rig import all_in_touch, order, shard, shards, until

ANN, MALLORY = "ann@example.com", "mallory@example.com"
NAMES = re.compile(
    rb"(?i)standup|retro|ann@|mallory|example|mod-ira|hush-hush|token-of-ann|is loud|over now|cancelled|conference"
)
PLAIN = re.compile(r"[0-9a-f+. -]*|allow|config|deny|lobby|private|waits|every|at|[eavwcdrskm]")
"""Digests, random texts, times, lifetimes, the labels of verdicts, and the names of fields."""
SEALED = ("answer c", "stream m", "orders", "changes")


async def held(engine: EngineProcess) -> AsyncIterator[tuple[str, bytes]]:
    """All that is in the engine, with where it is: the kind of the key, and for a hash or a stream the field."""
    for key in await engine.order("KEYS", "*"):
        name = key.decode().removeprefix("{prosody-sidecar}:")
        kind, _, rest = name.partition(":")
        yield "key", rest.encode()
        match await engine.order("TYPE", key):
            case b"string":
                yield kind, await engine.order("GET", key)
            case b"hash":
                pairs = await engine.order("HGETALL", key)
                for field, value in pairs.items():
                    yield "field", field
                    yield kind if kind == "orders" else f"{kind} {field.decode()}", value
            case b"zset":
                for member in await engine.order("ZRANGE", key, 0, -1):
                    yield kind, member
            case b"stream":
                for _, fields in await engine.order("XRANGE", key, "-", "+"):
                    for field, value in fields.items():
                        yield f"{kind} {field.decode()}", value


async def test_nothing_is_readable_in_the_engine_but_digests_times_lifetimes_and_labels_of_verdicts(
    backend: Backend, engine: EngineProcess
) -> None:
    backend.on("room-created", reply({"moderators": ["mod-ira@example.com"], "lobbyPassword": "hush-hush"}))
    backend.on("validate-access", reply({"allowed": True, "token": "token-of-ann", "meetingTitle": "Standup meeting"}))
    backend.on("validate-access", deny("Mallory was cancelled"), room="retro")
    done, absent = Module({"status": "done", "kicked": 1}), Module({"status": "absent"})
    async with shards(backend, engine.url, engine.url) as (here, there), AsyncExitStack() as links:
        for module, sidecar in ((absent, here), (done, there)):
            await links.enter_async_context(module.linked(sidecar))
        await here.decides("standup", ANN)
        await here.configures("standup")
        assert not (await here.decides("retro", MALLORY)).allowed
        assert (await order(here, "kick", room="standup", user=ANN, reason="Ann is loud"))[0] == 200
        assert (await order(here, "forget", user=ANN))[0] == 200
        await here.decides("standup", ANN)
        await links.aclose()
        assert (await order(here, "end", room="standup", reason="over now"))[0] == 202
        await until(lambda: _holds(engine, {"answer c": 3, "stream m": 7, "orders": 1}))
        async for place, content in held(engine):
            assert not NAMES.search(content), (place, content)
            assert place in SEALED or PLAIN.fullmatch(content.decode()), (place, content)


async def _holds(engine: EngineProcess, least: dict[str, int]) -> bool:
    places = [place async for place, _ in held(engine)]
    return all(places.count(place) >= number for place, number in least.items())


@pytest.mark.parametrize("lie", [lambda deny, _: as_allow(deny), lambda _, of_another: of_another], ids=["bit", "swap"])
async def test_a_deny_that_somebody_made_an_allow_lets_nobody_in(
    backend: Backend, engine: EngineProcess, lie: Callable[[bytes, bytes], bytes]
) -> None:
    backend.on("validate-access", deny("cancelled"), room="retro")
    async with shards(backend, engine.url) as (here,):
        assert (await here.decides("standup", ANN)).allowed
        assert not (await here.decides("retro", MALLORY)).allowed
        await until(lambda: _holds(engine, {"answer c": 2}))
    keys = await engine.order("KEYS", "*:answer:*")
    contents = {(await engine.order("HGET", key, "v")): await engine.order("HGET", key, "c") for key in keys}
    for key in keys:
        if await engine.order("HGET", key, "v") == b"deny":
            await engine.order("HSET", key, "v", "allow", "c", lie(contents[b"deny"], contents[b"allow"]))
    async with shards(backend, engine.url) as (there,):
        await backend.stop()
        assert (await there.decides("standup", ANN)).allowed
        assert not (await there.decides("retro", MALLORY)).allowed
        assert await there.metric("shared_reads_total", outcome="forged") == 1


async def test_what_a_sidecar_of_another_namespace_has_said_is_not_believed(
    backend: Backend, engine: EngineProcess
) -> None:
    async with (
        shard(backend, engine.url, shared={"namespace": "tenant-a"}) as here,
        shard(backend, engine.url, shared={"namespace": "tenant-b"}) as there,
    ):
        await all_in_touch(here, there)
        assert (await there.decides("standup", ANN)).allowed
        assert (await here.command("purge", "--user", ANN))[0] == 0
        await until(lambda: _copies(engine, "tenant-a", "tenant-b"))
        await until(lambda: _has_noticed(there))
        await backend.stop()
        assert (await there.decides("standup", ANN)).allowed


async def _copies(engine: EngineProcess, source: str, to: str) -> bool:
    """The last message of one namespace is said in another."""
    ((_, said),) = await engine.order("XREVRANGE", f"{{{source}}}:stream", "+", "-", "COUNT", 1)
    ((last, _),) = await engine.order("XREVRANGE", f"{{{to}}}:stream", "+", "-", "COUNT", 1)
    if said[b"m"]:
        await engine.order(
            "XADD", f"{{{to}}}:stream", f"{int(last.partition(b'-')[0]) + 1}-0", "m", said[b"m"], "at", said[b"at"]
        )
    return bool(said[b"m"])


async def _has_noticed(sidecar: Sidecar) -> bool:
    return await sidecar.metric("shared_reads_total", outcome="forged") == 1
