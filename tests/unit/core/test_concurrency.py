"""The concurrency limit: it follows backends of many kinds, in simulated time. See `simulated.py`."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.concurrency import LEAST, START, Cause, Limit, Sent
from tests.unit.core.simulated import Backend, Seconds, at_once, constant, evenly, simulate

PATIENCE = 3.6
"""Seconds that a join may wait for a place."""


def noisy(seconds: float, sigma: float, seed: int = 1) -> Seconds:
    """Latencies that differ by chance (log-normal)."""
    chance = random.Random(seed)
    return lambda now, serving: seconds * chance.lognormvariate(0, sigma)


def slower(seconds: float, slow: float, since: float, until: float) -> Seconds:
    """Slower for a while, however many calls there are."""
    return lambda now, serving: slow if since <= now < until else seconds


# ---- a backend that can do any number of calls at once


@pytest.mark.parametrize(("latency", "within"), [(0.01, 0.05), (0.05, 0.15), (0.2, 0.65), (0.5, 2.6)])
def test_a_thousand_at_one_instant_are_all_answered_soon(latency: float, within: float) -> None:
    run = simulate(Backend(constant(latency)), at_once(1000), patience=PATIENCE)
    assert run.given_up == 0
    assert run.last_at < within


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0])
def test_latencies_that_differ_by_chance_keep_nobody_out(sigma: float) -> None:
    run = simulate(Backend(noisy(0.05, sigma)), evenly(2000, 0, 20), patience=PATIENCE)
    assert run.given_up == 0


def test_a_backend_that_becomes_ten_times_slower_by_itself_is_given_more_calls_not_fewer() -> None:
    run = simulate(Backend(slower(0.05, 0.5, 10, 20)), evenly(300, 0, 30), patience=PATIENCE)
    assert run.given_up == 0
    assert run.limit_at(19) > 150


def test_a_slow_call_among_many_changes_nothing() -> None:
    numbers = iter(range(1_000_000))
    run = simulate(Backend(lambda now, serving: 3.0 if next(numbers) % 50 == 0 else 0.05), evenly(1000, 0, 10))
    assert min(limit for _, limit in run.limits) >= START


# ---- a backend that can do a hundred at once


@pytest.mark.parametrize("latency", [0.01, 0.05, 0.1, 0.2, 0.5])
def test_a_backend_that_can_do_a_hundred_is_given_120_for_at_most_a_second(latency: float) -> None:
    burst = simulate(Backend(constant(latency), 100), at_once(1000), patience=PATIENCE)
    load = simulate(Backend(constant(latency), 100), evenly(150 / latency, 0, max(3, 40 * latency)), patience=PATIENCE)
    assert max(burst.longest_above(120), load.longest_above(120)) <= 1.0


@pytest.mark.parametrize("latency", [0.05, 0.2])
def test_it_is_kept_busy_all_the_same(latency: float) -> None:
    run = simulate(Backend(constant(latency), 100), evenly(200 / latency, 0, 10), patience=PATIENCE)
    assert len(run.waits) > 0.95 * 100 / latency * 10


def test_its_floor_is_not_forgotten_in_a_long_overload() -> None:
    run = simulate(Backend(constant(0.2), 100), evenly(600, 0, 80), patience=PATIENCE)
    assert all(run.under_way_at(at) <= 120 for at in range(2, 80))


def test_a_small_backend_is_given_few_calls_within_seconds() -> None:
    run = simulate(Backend(constant(0.05), 8), evenly(320, 0, 20), patience=PATIENCE)
    assert run.limit_at(5) <= 2 * LEAST


def test_when_the_capacity_falls_the_limit_falls_and_it_comes_back() -> None:
    def seconds(now: float, serving: int) -> float:
        return 0.05 * max(1.0, serving / 20) if 10 <= now < 20 else 0.05

    run = simulate(Backend(seconds, 100), evenly(1500, 0, 30), patience=PATIENCE)
    assert run.limit_at(15) < 40
    assert run.limit_at(22) >= 75


def test_a_latency_that_rises_with_every_call_settles_in_between() -> None:
    run = simulate(Backend(lambda now, serving: 0.05 * (1 + serving / 50)), evenly(1500, 0, 20), patience=PATIENCE)
    assert 30 <= run.limit_at(10) <= 80


@pytest.mark.parametrize("seconds", [0.03, 0.06, 0.1])
def test_a_moment_in_which_the_backend_is_slower_costs_a_burst_no_more_than_that_and_one_latency(
    seconds: float,
) -> None:
    for begin in range(0, 80, 4):
        moment = slower(0.2, 0.2 + seconds, begin / 100, begin / 100 + 0.1)
        assert simulate(Backend(moment), at_once(1000), patience=PATIENCE).last_at <= 0.6 + seconds + 0.21


def test_a_backend_that_turns_calls_away_is_given_fewer() -> None:
    run = simulate(Backend(constant(0.1), capacity=30, queue=10), evenly(600, 0, 20), patience=PATIENCE)
    assert run.turned_away < 0.2 * len(run.waits)
    assert 20 <= run.limit_at(10) <= 45


# ---- what is not the backend's


def report(limit: Limit, sent: Sent, seconds: float, *, waiting: bool = False) -> None:
    limit.answered(sent.at + seconds, sent, "decision", seconds, still=0, waiting=waiting)


def test_few_calls_that_are_turned_away_are_not_too_many() -> None:
    limit = Limit(1000)
    for number in range(1000):
        limit.turned_away(float(number), limit.send(float(number), 3), still=2, waiting=False)
    assert limit.at(1000.0) == START


def test_calls_that_say_nothing_change_nothing() -> None:
    limit = Limit(1000)
    for number in range(1000):
        limit.says_nothing(float(number), limit.send(float(number), 90), still=80, waiting=True)
    assert limit.at(1000.0) == START


def test_a_longer_latency_with_few_calls_is_not_their_number() -> None:
    limit = Limit(1000)
    for number in range(1000):
        report(limit, limit.send(float(number), 2), 0.05 if number < 500 else 0.9)
    assert limit.at(1000.0) == START


def test_calls_of_different_kinds_have_floors_of_their_own() -> None:
    limit = Limit(100)
    for number in range(1000):
        kind, seconds = ("decision", 0.01) if number % 2 else ("event", 1.0)
        sent = limit.send(float(number), 100)
        assert limit.answered(number + seconds, sent, kind, seconds, still=99, waiting=True) is None


# ---- bounds


@pytest.mark.parametrize("ceiling", [1, 2, 10, 99])
def test_it_begins_at_the_ceiling_if_that_is_low_and_never_passes_it(ceiling: int) -> None:
    run = simulate(Backend(constant(0.05)), at_once(500), Limit(ceiling))
    assert {limit for _, limit in run.limits} == {ceiling}
    assert max(count for _, count in run.under_way) == ceiling


def test_another_ceiling_counts_at_once_and_a_higher_one_later() -> None:
    limit = Limit(1000)
    limit.configure(20)
    assert limit.at(0.0) == 20
    limit.configure(1000)
    run = simulate(Backend(constant(0.05)), at_once(1000), limit)
    assert run.limit_at(run.last_at) > 100


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.sampled_from(["answered", "turned away", "nothing"]), st.floats(0, 10)), max_size=400),
)
def test_whatever_happens_it_stays_between_its_bounds(ceiling: int, ends: list[tuple[str, float]]) -> None:
    limit, now = Limit(ceiling), 0.0
    for end, seconds in ends:
        sent = limit.send(now, limit.at(now))
        now += seconds
        match end:
            case "answered":
                limit.answered(now, sent, "decision", seconds / 3, still=0, waiting=True)
            case "turned away":
                limit.turned_away(now, sent, still=0, waiting=True)
            case _:
                limit.says_nothing(now, sent, still=0, waiting=True)
        assert min(LEAST, ceiling) <= limit.at(now) <= ceiling


def test_each_change_has_a_cause() -> None:
    limit = Limit(1000)
    sent = [limit.send(0.0, number + 1) for number in range(100)]
    changes = [limit.answered(0.2, call, "decision", 0.2, still=99, waiting=True) for call in sent]
    assert [change.cause for change in changes if change] == [Cause.NEAR_FLOOR]
