"""What is written behind to the shared memory, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from sidecar.clock import SystemClock
from sidecar.core.contact import Contact
from sidecar.core.sealed import Sealer
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.to_engine import ToEngine
from tests.unit.builders import a_key

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


async def test_answers_without_end_delay_no_deny() -> None:
    def ignore(_: object) -> None:
        """Nothing is observed."""

    engine = EngineThatIsNeverIdle()
    queue = engine.queue = ToEngine(
        Cache(Limits()), cast("Any", engine), Sealer(b"key"), Contact(), unused, "member", unused, SystemClock(), ignore
    )
    queue.withdraw(a_key())
    writing = asyncio.ensure_future(queue.run())
    async with asyncio.timeout(5):
        await engine.denied.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert 100 <= engine.withdrawn <= 200
