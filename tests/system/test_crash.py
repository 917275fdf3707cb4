"""A short run of `make crash`: what is acknowledged survives -9, and what is denied stays denied."""

import pytest

from tests.crash import crash, crash_at, deny_then_crash


async def test_a_sidecar_that_is_killed_comes_back_loses_no_event_and_never_answers_wrongly() -> None:
    report = await crash(kills=6, seed=7)
    assert report.held, report.problems
    assert report.right > 0
    assert report.acknowledged > 0


@pytest.mark.parametrize("point", ["accepted", "delivered"])
async def test_a_kill_at_the_worst_moment_costs_at_most_a_repeated_delivery(point: str) -> None:
    report = await crash_at(point, 2)
    assert report.held, report.problems
    assert (report.duplicates > 0) is (point == "delivered")


@pytest.mark.parametrize("point", ["denied", "answered"])
async def test_an_allow_that_a_deny_has_taken_away_does_not_come_back_by_a_crash(point: str) -> None:
    assert await deny_then_crash(point, 2) == []
