"""Reads of the shared memory by many questions at once."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from sidecar.core.contact import PATIENCE, Contact, Trust
from sidecar.core.fences import MISSING
from sidecar.core.sealed import Found, Sealer
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.from_engine import AT_ONCE, LATE, FromEngine
from sidecar.errors import EngineError
from tests.unit.builders import a_key
from tests.unit.virtual import VirtualClock, in_virtual_time


class EngineOfManyReads:
    """Fails when more is read at once than there are connections, as the real client does after a while."""

    def __init__(self, takes: float = 0.0) -> None:
        self.takes = takes
        self.under_way = self.reads = 0
        self.is_away = False

    async def read(self, *_: object) -> Found:
        self.reads += 1
        self.under_way += 1
        try:
            await asyncio.sleep(self.takes)
            if self.under_way > AT_ONCE or self.is_away:
                raise EngineError("no answer in time")
            return Found("epoch", 0, (MISSING,))
        finally:
            self.under_way -= 1


def reads_of(engine: EngineOfManyReads) -> FromEngine:
    def ignore(_: object) -> None:
        """Nothing is observed."""

    return FromEngine(Cache(Limits()), cast("Any", engine), Sealer(b"key"), Contact(), VirtualClock(), ignore)


async def asked_at_once(reads: FromEngine) -> int:
    """How many of two hundred questions the engine has answered."""
    keys = [a_key(subject=f"jid user-{number}@example.org") for number in range(200)]
    return sum([found is not None for found in await asyncio.gather(*map(reads.recall, keys))])


@in_virtual_time
async def test_many_questions_at_once_are_all_answered_by_the_engine() -> None:
    assert await asked_at_once(reads_of(EngineOfManyReads())) == 200


@in_virtual_time
async def test_an_engine_that_is_away_is_asked_by_the_first_of_many_questions_only() -> None:
    engine = EngineOfManyReads()
    engine.is_away = True
    assert await asked_at_once(reads_of(engine)) == 0
    assert engine.reads <= 2 * AT_ONCE


@in_virtual_time
async def test_all_who_come_while_it_is_tried_again_get_the_answers_if_it_works_again() -> None:
    engine = EngineOfManyReads()
    reads = reads_of(engine)
    reads._trust.failures = Trust.MOST
    assert await asked_at_once(reads) == 200


@in_virtual_time
async def test_nobody_waits_longer_for_a_turn_than_for_the_engine() -> None:
    begun = asyncio.get_running_loop().time()
    assert 16 <= await asked_at_once(reads_of(EngineOfManyReads(takes=0.012))) <= 32
    assert asyncio.get_running_loop().time() - begun <= PATIENCE + LATE
