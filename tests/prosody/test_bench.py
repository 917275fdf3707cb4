"""The parts of the benchmark with real Prosodys run through. Only they need nginx; without it, its rows say so."""

from __future__ import annotations

import math

import pytest

from bench import bosh, instant, joins
from bench.prosodys import FLOOR, NGINX, SIDECAR, WAYS
from bench.sample import Failure, Measured, Sample

pytestmark = pytest.mark.asyncio(loop_scope="session")


def figures(measured: list[Measured], table: str, figure: str) -> dict[str, float]:
    """By program, the lowest of all cases."""
    found: dict[str, float] = {}
    for each in measured:
        if isinstance(each, Sample) and (each.table, each.figure) == (table, figure):
            found[each.who] = min(found.get(each.who, math.inf), each.value)
    return found


def broken(measured: list[Measured]) -> list[Failure]:
    return [each for each in measured if isinstance(each, Failure) and NGINX not in each.who]


async def test_joins_are_measured_in_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joins, "USERS", 20)
    measured = [each async for each in joins.measure(1, True, print)]
    assert broken(measured) == []
    assert set(figures(measured, "joins", "joins/s")) >= set(WAYS) - {NGINX}
    kilobytes = figures(measured, "cost", "KB a join")
    assert 5 < kilobytes[FLOOR] < kilobytes[SIDECAR] < 200


async def test_users_at_one_instant_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instant, "USERS", (3, 5))
    measured = [each async for each in instant.measure(1, True, print)]
    assert broken(measured) == []
    assert {each.case for each in measured if isinstance(each, Sample)} == {"3 users", "5 users"}


async def test_joins_over_bosh_are_measured() -> None:
    measured = [each async for each in bosh.measure(1, True, print)]
    assert broken(measured) == []
    assert set(figures(measured, "bosh", "p50 ms")) == set(bosh.ROWS)
