"""What is written behind to the shared memory, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from sidecar.clock import SystemClock
from sidecar.core.contact import Contact
from sidecar.core.model import Verdict
from sidecar.core.sealed import Found, Sealer, usable
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.to_engine import MOST_RESTRICTIONS, ToEngine
from tests.unit.builders import a_key, a_policy, an_entry
from tests.unit.decisions.engine_model import Data, EngineModel

unused = cast("Any", None)


class EngineThatIsNeverIdle:
    """While it withdraws an answer, another one is to be withdrawn."""

    def __init__(self) -> None:
        self.queue: ToEngine | None = None
        self.withdrawn = 0
        self.denied = asyncio.Event()

    async def withdraw(self, _: str) -> None:
        assert self.queue is not None
        self.withdrawn += 1
        await asyncio.sleep(0)
        self.queue.withdraw(a_key(subject=f"jid user-{self.withdrawn}@example.org"))
        if self.withdrawn == 100:
            self.queue.separate_guests(a_key(subject="guest"), 0.0)

    async def read(self, *_: object, **__: object) -> Any:
        self.denied.set()
        return await asyncio.Future()


class EngineThatCanBeEmptied:
    """A model of the engine."""

    def __init__(self) -> None:
        self.model = EngineModel()

    async def read(self, name: str, scopes: list[str], **_: object) -> Found:
        return self.model.read(name, scopes)

    async def deny(
        self,
        name: str,
        scopes: list[str],
        verdict: str,
        asked_for: int,
        settled_for: int,
        _: int,
        content: bytes,
        every: int,
        said: bytes,
        *,
        again: bool,
    ) -> str:
        self.model.deny(name, scopes[1], verdict, asked_for, settled_for, every, content, said, again=again)
        return self.model.beat(0).epoch


def a_queue(engine: object, cache: Cache) -> ToEngine:
    return ToEngine(
        cache,
        cast("Any", engine),
        Sealer(b"key"),
        Contact(),
        lambda: lambda _endpoint, _room: a_policy(),
        "member",
        unused,
        SystemClock(),
        lambda _: None,
    )


async def test_strangers_cannot_fill_the_queue_of_an_engine_that_is_away_and_no_deny_that_counts_is_left_out() -> None:
    cache = Cache(Limits(denies=10))
    queue = a_queue(unused, cache)
    cache.put(a_key(), an_entry(asked_at=10.0))
    for number in range(MOST_RESTRICTIONS + 1_000):
        key = a_key() if number == 0 else a_key(f"made up {number}")
        cache.put(key, an_entry(Verdict.DENY, asked_at=20.0))
        queue.learned(key, an_entry(Verdict.DENY, asked_at=20.0), None)
    assert queue.unsaid <= MOST_RESTRICTIONS
    assert a_key() in queue._restrictions


async def test_a_deny_that_was_under_way_while_the_engine_lost_its_memory_is_found_there() -> None:
    engine, sealer, clock = EngineThatCanBeEmptied(), Sealer(b"key"), SystemClock()
    queue = a_queue(engine, Cache(Limits()))
    name, scopes = sealer.key(a_key()), sealer.scopes(a_key())
    before = engine.model.read(name, scopes)
    queue.learned(a_key(), an_entry(Verdict.DENY, asked_at=clock.monotonic()), before)
    engine.model.become(Data())
    await queue.write_firm()
    found = engine.model.read(name, scopes)
    assert found.content is not None
    entry = usable(sealer.unpack(name, found.content), found, clock.monotonic(), in_touch=True)
    assert entry is not None
    assert entry.verdict is Verdict.DENY
    assert not queue.unsaid


async def test_answers_without_end_delay_no_deny() -> None:
    engine = EngineThatIsNeverIdle()
    queue = engine.queue = a_queue(engine, Cache(Limits()))
    queue.withdraw(a_key())
    writing = asyncio.ensure_future(queue.run())
    async with asyncio.timeout(5):
        await engine.denied.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert 100 <= engine.withdrawn <= 200
