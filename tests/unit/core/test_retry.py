"""When to ask again, after how long, and how often at the most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.delivery_schedule import next_delay
from sidecar.core.model import Failure, Kind, Misconfigured, Outcome, Unavailable
from sidecar.core.retry import RetryBudget, is_retryable
from tests.unit.builders import allowed, unwanted


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("failure", Failure)
def test_only_what_was_not_sent_is_asked_again_and_a_decision_after_a_reset_too(kind: Kind, failure: Failure) -> None:
    safe = failure is Failure.UNSENT or (kind, failure) == (Kind.DECISION, Failure.RESET)
    assert is_retryable(kind, Unavailable("the connection broke", failure)) is safe


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("outcome", [allowed(), unwanted(409), Misconfigured("the backend answered 401", 401)])
def test_nobody_asks_again_who_has_an_answer_or_no_right_to_one(kind: Kind, outcome: Outcome) -> None:
    assert not is_retryable(kind, outcome)


def test_delays_double_up_to_their_cap() -> None:
    assert [next_delay(attempt, 0.0, base=1.0, cap=10.0) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


def test_delays_stay_at_their_cap_however_many_attempts_there_were() -> None:
    assert next_delay(10**9, 0.0, base=0.001, cap=300.0) == 300.0


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0.01, 10), st.floats(10, 1000))
def test_jitter_takes_off_at_most_a_half(attempt: int, jitter: float, base: float, cap: float) -> None:
    whole = next_delay(attempt, 0.0, base=base, cap=cap)
    assert whole / 2 <= next_delay(attempt, jitter, base=base, cap=cap) <= whole <= cap


def test_jitter_takes_off_up_to_a_half() -> None:
    assert next_delay(1, 1.0, base=4.0, cap=10.0) == 2.0


def test_five_lost_connections_at_once_refuse_nobody() -> None:
    budget = RetryBudget()
    assert [budget.take() for _ in range(6)] == [True] * 5 + [False]


def test_ten_first_attempts_pay_for_one_retry() -> None:
    budget = RetryBudget(tokens=0.0)
    retries = 0
    for _ in range(1000):
        budget.first_attempt()
        retries += budget.take()
    assert 99 <= retries <= 100


def test_a_quiet_day_saves_up_no_more_than_the_burst() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.first_attempt()
    assert sum(budget.take() for _ in range(100)) == 5


@given(st.lists(st.booleans(), max_size=300))
def test_retries_never_exceed_a_tenth_of_the_first_attempts_and_five(steps: list[bool]) -> None:
    budget = RetryBudget()
    firsts = retries = 0
    for retry in steps:
        if retry:
            retries += budget.take()
        else:
            budget.first_attempt()
            firsts += 1
        assert retries <= firsts * 0.1 + 5
