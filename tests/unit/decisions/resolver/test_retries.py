"""What is asked a second time, and what is not."""

from __future__ import annotations

import pytest

from sidecar.core.breaker import BreakerRules
from tests.unit.harness import (
    DISTRUST,
    REFUSED,
    RESET,
    Harness,
    broken,
)
from tests.unit.virtual import in_virtual_time


@pytest.mark.parametrize("failure", [REFUSED, RESET])
def test_a_decision_is_asked_once_more_after_a_lost_connection(failure: object) -> None:
    @in_virtual_time
    async def run() -> None:
        harness = Harness()
        harness.backend.says(failure)  # type: ignore[arg-type]
        assert (await harness.asks()).allowed is True
        assert [fact.retry for fact in harness.asked()] == [False, True]
        assert harness.changes() == []

    run()


@in_virtual_time
async def test_a_decision_is_asked_no_third_time() -> None:
    harness = Harness()
    harness.backend.says(RESET, RESET)
    assert (await harness.asks()).allowed is False
    assert len(harness.backend.calls) == 2


@in_virtual_time
async def test_settings_are_asked_for_again_only_if_nothing_was_sent() -> None:
    harness = Harness()
    harness.backend.says(REFUSED)
    assert (await harness.asks_config()).status == 200
    harness.backend.says(RESET)
    assert (await harness.asks_config("other")).status == 503
    assert len(harness.backend.calls) == 3


@pytest.mark.parametrize("failure", [broken(500), broken(503), broken(200), DISTRUST])
def test_an_answer_that_came_is_not_asked_for_again(failure: object) -> None:
    @in_virtual_time
    async def run() -> None:
        harness = Harness()
        harness.backend.says(failure)  # type: ignore[arg-type]
        await harness.asks()
        assert len(harness.backend.calls) == 1

    run()


@in_virtual_time
async def test_retries_are_a_tenth_of_the_first_attempts_and_five() -> None:
    harness = Harness(breaker=BreakerRules(minimum_calls=100_000))
    harness.backend.always(RESET)
    for number in range(200):
        await harness.asks(f"u{number}@example.com")
    retries = sum(fact.retry for fact in harness.asked())
    assert 20 <= retries <= 25
    assert len(harness.backend.calls) <= 200 * 1.1 + 5
