"""The decision table, cell by cell: what is said, after how long, and how often the backend is asked."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.breaker import Permit
from sidecar.core.model import Source
from sidecar.core.policy import Freshness
from tests.unit.harness import (
    HANG,
    Harness,
    after,
    allow,
    deny,
    now,
    settled,
)
from tests.unit.virtual import in_virtual_time

AGES = {
    Freshness.FRESH: 5.0,
    Freshness.REVALIDATE: 20.0,
    Freshness.STALE: 100.0,
    Freshness.SUSPECT: 5.0,
    Freshness.EXPIRED: 3700.0,
}
MEMORY, BACKEND, POLICY = (True, Source.STALE), (True, Source.BACKEND), (False, Source.POLICY)
HIT = (True, Source.HIT)
TABLE: dict[Freshness, tuple[tuple[tuple[bool, Source], float, int], ...]] = {
    #                     closed              half-open, free      half-open, out       open
    Freshness.FRESH: ((HIT, 0, 0), (HIT, 0, 0), (HIT, 0, 0), (HIT, 0, 0)),
    Freshness.REVALIDATE: ((MEMORY, 0, 1), (MEMORY, 0, 1), (MEMORY, 0, 0), (MEMORY, 0, 0)),
    Freshness.STALE: ((MEMORY, 0.5, 1), (MEMORY, 0, 1), (MEMORY, 0, 0), (MEMORY, 0, 0)),
    Freshness.SUSPECT: ((BACKEND, 0.7, 1), (BACKEND, 0.7, 1), (MEMORY, 0.5, 0), (MEMORY, 0, 0)),
    Freshness.EXPIRED: ((BACKEND, 0.7, 1), (BACKEND, 0.7, 1), (POLICY, 0.5, 0), (POLICY, 0, 0)),
    Freshness.MISSING: ((BACKEND, 0.7, 1), (BACKEND, 0.7, 1), (POLICY, 0.5, 0), (POLICY, 0, 0)),
}


@pytest.mark.parametrize("permit", Permit)
@pytest.mark.parametrize("state", Freshness)
def test_each_cell_of_the_table_does_what_the_design_says(state: Freshness, permit: Permit) -> None:
    @in_virtual_time
    async def run() -> None:
        harness = Harness()
        pause = 3.7 if permit in (Permit.PROBE_FREE, Permit.PROBE_OUT) else 0.0
        if state is not Freshness.MISSING:
            await harness.asks()
            if state is Freshness.SUSPECT:
                harness.backend.says(deny())
                await harness.asks("late@example.com")
            await harness.passes(AGES[state] - pause)
        if permit is not Permit.CLOSED:
            await harness.trip()
            await harness.passes(pause)
        others = []
        if permit is Permit.PROBE_OUT:
            harness.backend.says(HANG)
            others = [harness.soon("prober@example.com", "another-room")]
            await settled()
        harness.backend.calls.clear()
        harness.backend.always(after(0.7, allow()))
        said, seconds, calls = TABLE[state][list(Permit).index(permit)]
        begun = now()
        answer = await harness.asks()
        assert (answer.allowed, answer.source) == said
        assert now() - begun == pytest.approx(seconds, abs=0.01)
        await settled()
        assert len(harness.backend.calls) == calls
        await asyncio.gather(*others)

    run()
