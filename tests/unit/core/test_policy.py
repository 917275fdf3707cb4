"""What to do with a question, and what to make of the backend's answer: the decision table and its settlement."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.breaker import Permit
from sidecar.core.model import (
    ANSWERS,
    CacheControl,
    Entry,
    Failure,
    Lifetimes,
    Misconfigured,
    Outcome,
    Rejected,
    Replied,
    Unavailable,
    Verdict,
)
from sidecar.core.policy import (
    LOBBY_TOMBSTONE,
    PLANS,
    TOMBSTONE,
    Act,
    Fallback,
    Freshness,
    OnUnavailable,
    Plan,
    Reply,
    Settled,
    decide,
    freshness,
    settle,
    shorten,
)
from tests.unit.builders import (
    ALLOW,
    ALLOW_LIFETIMES,
    CONFIG,
    CONFIG_LIFETIMES,
    DENY,
    DENY_LIFETIMES,
    a_config_key,
    a_config_policy,
    a_key,
    a_policy,
    a_query,
    allowed,
    an_entry,
    configured,
    denied,
    unwanted,
)

NEVER = float("-inf")

# The table of the design, cell by cell, in words of its own.
ANSWER = (Act.ANSWER, False, Fallback.NEVER)
ANSWER_AND_REFRESH = (Act.ANSWER, True, Fallback.NEVER)
ASK = (Act.ASK, False, Fallback.NEVER)
ASK_UNLESS_SLOW = (Act.ASK, False, Fallback.SLOW)
ASK_UNLESS_UNAVAILABLE = (Act.ASK, False, Fallback.UNAVAILABLE)
WAIT = (Act.AWAIT_PROBE, False, Fallback.NEVER)
REFUSE = (Act.REFUSE, False, Fallback.NEVER)

DESIGN = {
    ("fresh", "closed"): ANSWER,
    ("fresh", "half-open, probe free"): ANSWER,
    ("fresh", "half-open, probe out"): ANSWER,
    ("fresh", "open"): ANSWER,
    ("stale, within stale_while_revalidate", "closed"): ANSWER_AND_REFRESH,
    ("stale, within stale_while_revalidate", "half-open, probe free"): ANSWER_AND_REFRESH,
    ("stale, within stale_while_revalidate", "half-open, probe out"): ANSWER,
    ("stale, within stale_while_revalidate", "open"): ANSWER,
    ("stale, within stale_if_error", "closed"): ASK_UNLESS_SLOW,
    ("stale, within stale_if_error", "half-open, probe free"): ANSWER_AND_REFRESH,
    ("stale, within stale_if_error", "half-open, probe out"): ANSWER,
    ("stale, within stale_if_error", "open"): ANSWER,
    ("suspect", "closed"): ASK_UNLESS_UNAVAILABLE,
    ("suspect", "half-open, probe free"): ASK_UNLESS_UNAVAILABLE,
    ("suspect", "half-open, probe out"): WAIT,
    ("suspect", "open"): ANSWER,
    ("expired", "closed"): ASK,
    ("expired", "half-open, probe free"): ASK,
    ("expired", "half-open, probe out"): WAIT,
    ("expired", "open"): REFUSE,
    ("missing", "closed"): ASK,
    ("missing", "half-open, probe free"): ASK,
    ("missing", "half-open, probe out"): WAIT,
    ("missing", "open"): REFUSE,
}


def test_the_table_is_total() -> None:
    assert set(PLANS) == {(state, permit) for state in Freshness for permit in Permit}


@pytest.mark.parametrize(("state", "permit"), PLANS)
def test_every_cell_is_the_one_of_the_design(state: Freshness, permit: Permit) -> None:
    plan = decide(state, permit)
    assert (plan.act, plan.refresh, plan.fallback) == DESIGN[state.value, permit.value]


@pytest.mark.parametrize(("state", "permit"), PLANS)
def test_nobody_who_is_unknown_is_answered_from_memory(state: Freshness, permit: Permit) -> None:
    plan = decide(state, permit)
    if state in (Freshness.MISSING, Freshness.EXPIRED):
        assert plan.act is not Act.ANSWER
        assert plan.fallback is Fallback.NEVER


def test_a_plan_cannot_be_changed_by_whoever_looks_it_up() -> None:
    plan: Plan = decide(Freshness.FRESH, Permit.OPEN)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.act = Act.REFUSE  # type: ignore[misc]


# ---- freshness


def state_at(
    age: float,
    verdict: Verdict = Verdict.ALLOW,
    *,
    lifetimes: Lifetimes | None = None,
    limits: Lifetimes | None = None,
    spread: float = 0.0,
    suspect_before: float = NEVER,
) -> Freshness:
    """How usable an entry is that was asked at 100, so many seconds later."""
    entry = an_entry(verdict, asked_at=100.0, settled_at=101.0, lifetimes=lifetimes, spread=spread)
    return freshness(entry, limits, 100.0 + age, suspect_before)


def test_without_an_entry_everything_is_missing() -> None:
    assert freshness(None, None, 0.0, NEVER) is Freshness.MISSING
    assert freshness(None, ALLOW_LIFETIMES, 0.0, math.inf) is Freshness.MISSING


@pytest.mark.parametrize(
    ("age", "state"),
    [
        (0.0, Freshness.FRESH),
        (14.99, Freshness.FRESH),
        (15.0, Freshness.REVALIDATE),
        (29.99, Freshness.REVALIDATE),
        (30.0, Freshness.STALE),
        (3614.99, Freshness.STALE),
        (3615.0, Freshness.EXPIRED),
        (1e9, Freshness.EXPIRED),
    ],
)
def test_an_allow_ages_from_fresh_to_expired_counted_from_the_question(age: float, state: Freshness) -> None:
    assert state_at(age) is state


def test_a_deny_and_a_config_are_never_refreshed_behind_an_answer_by_default() -> None:
    for verdict in (Verdict.DENY, Verdict.CONFIG):
        assert state_at(4.99, verdict) is Freshness.FRESH
        assert state_at(5.0, verdict) is Freshness.STALE


def test_the_larger_stale_limit_counts() -> None:
    swr_only = Lifetimes(10, 20, 5)
    assert state_at(29.9, lifetimes=swr_only) is Freshness.REVALIDATE
    assert state_at(30.0, lifetimes=swr_only) is Freshness.EXPIRED


def test_an_answer_that_may_not_be_used_stale_goes_from_fresh_to_expired() -> None:
    assert state_at(14.9, lifetimes=Lifetimes(15, 0, 0)) is Freshness.FRESH
    assert state_at(15.0, lifetimes=Lifetimes(15, 0, 0)) is Freshness.EXPIRED


def test_an_entry_without_any_lifetime_is_expired_at_once() -> None:
    assert state_at(0.0, lifetimes=Lifetimes(0, 0, 0)) is Freshness.EXPIRED


def test_jitter_takes_at_most_a_tenth_off_the_fresh_time() -> None:
    assert state_at(13.49, spread=1.0) is Freshness.FRESH
    assert state_at(13.5, spread=1.0) is Freshness.REVALIDATE
    assert state_at(14.24, spread=0.5) is Freshness.FRESH
    assert state_at(14.25, spread=0.5) is Freshness.REVALIDATE


def test_todays_rules_shorten_what_was_stored_under_others() -> None:
    assert state_at(10.0, limits=Lifetimes(5, 0, 3600)) is Freshness.STALE
    assert state_at(10.0, limits=Lifetimes(5, 7, 0)) is Freshness.REVALIDATE
    assert state_at(10.0, limits=Lifetimes(5, 0, 0)) is Freshness.EXPIRED


def test_todays_rules_do_not_lengthen_what_was_stored_under_others() -> None:
    assert state_at(10.0, lifetimes=Lifetimes(5, 0, 0), limits=ALLOW_LIFETIMES) is Freshness.EXPIRED


@pytest.mark.parametrize("age", [0.0, 14.0, 20.0, 3000.0])
def test_an_allow_asked_before_a_later_deny_of_the_room_is_suspect_however_fresh(age: float) -> None:
    assert state_at(age, suspect_before=100.001) is Freshness.SUSPECT


def test_an_allow_asked_after_the_rooms_last_deny_or_at_the_same_instant_is_not_suspect() -> None:
    assert state_at(1.0, suspect_before=99.999) is Freshness.FRESH
    assert state_at(1.0, suspect_before=100.0) is Freshness.FRESH


def test_an_expired_allow_is_expired_and_not_suspect() -> None:
    assert state_at(3615.0, suspect_before=1e9) is Freshness.EXPIRED


@pytest.mark.parametrize("verdict", [Verdict.DENY, Verdict.CONFIG])
def test_only_allows_are_ever_suspect(verdict: Verdict) -> None:
    assert state_at(1.0, verdict, suspect_before=1e9) is Freshness.FRESH


SECONDS = st.floats(0, 10_000)
LIFETIMES = st.builds(Lifetimes, SECONDS, SECONDS, SECONDS)
USABLE = (Freshness.FRESH, Freshness.REVALIDATE, Freshness.STALE, Freshness.SUSPECT)


@given(LIFETIMES, LIFETIMES, SECONDS, st.floats(0, 1), st.sampled_from(ANSWERS), st.floats(-1, 200))
@example(Lifetimes(0.1, 0.2, 0.1), Lifetimes(0.1, 0.2, 0.1), 0.3, 0.0, Verdict.ALLOW, 0.0)
def test_nothing_is_usable_longer_than_fresh_and_the_larger_stale_limit_of_then_and_now(
    lifetimes: Lifetimes, limits: Lifetimes, age: float, spread: float, verdict: Verdict, suspect_before: float
) -> None:
    entry = an_entry(verdict, asked_at=0.0, lifetimes=lifetimes, spread=spread)
    state = freshness(entry, limits, age, suspect_before)
    for limit in (lifetimes, limits):
        if age >= limit.fresh + max(limit.stale_while_revalidate, limit.stale_if_error):
            assert state is Freshness.EXPIRED
    if state is Freshness.FRESH:
        assert age < min(lifetimes.fresh, limits.fresh)


def test_while_denies_are_not_known_only_a_policy_that_allows_is_another_one() -> None:
    for on_unavailable in OnUnavailable:
        policy = a_policy(on_unavailable=on_unavailable)
        expected = OnUnavailable.REFUSE if on_unavailable is OnUnavailable.ALLOW else on_unavailable
        assert policy.without_denies() == dataclasses.replace(policy, on_unavailable=expected)


# ---- Cache-Control

CACHE_CONTROL = st.builds(
    CacheControl,
    no_store=st.booleans(),
    private=st.booleans(),
    must_revalidate=st.booleans(),
    max_age=st.none() | SECONDS,
    stale_while_revalidate=st.none() | SECONDS,
    stale_if_error=st.none() | SECONDS,
)


@given(LIFETIMES, CACHE_CONTROL)
def test_cache_control_only_ever_shortens(policy: Lifetimes, said: CacheControl) -> None:
    left = shorten(policy, said)
    if said.no_store:
        assert left is None
        return
    assert left is not None
    assert left.at_most(policy) == left
    for limit, most in (
        (left.fresh, said.max_age),
        (left.stale_while_revalidate, said.stale_while_revalidate),
        (left.stale_if_error, said.stale_if_error),
    ):
        assert most is None or limit <= most


@given(LIFETIMES, CACHE_CONTROL, CACHE_CONTROL)
def test_each_directive_counts_by_itself(policy: Lifetimes, one: CacheControl, other: CacheControl) -> None:
    """Saying both at once leaves what saying one after the other leaves."""

    def least(first: float | None, second: float | None) -> float | None:
        return min((value for value in (first, second) if value is not None), default=None)

    both = CacheControl(
        one.no_store or other.no_store,
        one.private or other.private,
        one.must_revalidate or other.must_revalidate,
        least(one.max_age, other.max_age),
        least(one.stale_while_revalidate, other.stale_while_revalidate),
        least(one.stale_if_error, other.stale_if_error),
    )
    after_one = shorten(policy, one)
    assert shorten(policy, both) == (None if after_one is None else shorten(after_one, other))


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (CacheControl(), ALLOW_LIFETIMES),
        (CacheControl(private=True), ALLOW_LIFETIMES),
        (CacheControl(no_store=True), None),
        (CacheControl(no_store=True, max_age=5), None),
        (CacheControl(max_age=5), Lifetimes(5, 15, 3600)),
        (CacheControl(max_age=60), Lifetimes(15, 15, 3600)),
        (CacheControl(max_age=0), Lifetimes(0, 15, 3600)),
        (CacheControl(must_revalidate=True), Lifetimes(15, 0, 0)),
        (CacheControl(must_revalidate=True, stale_if_error=60), Lifetimes(15, 0, 0)),
        (CacheControl(stale_while_revalidate=3), Lifetimes(15, 3, 3600)),
        (CacheControl(stale_if_error=60), Lifetimes(15, 15, 60)),
        (CacheControl(stale_if_error=90_000, stale_while_revalidate=60), ALLOW_LIFETIMES),
    ],
)
def test_each_directive_takes_away_what_it_names(said: CacheControl, left: Lifetimes | None) -> None:
    assert shorten(ALLOW_LIFETIMES, said) == left


# ---- settlement


def settled(
    outcome: Outcome,
    *,
    current: Entry | None = None,
    asked_at: float = 100.0,
    now: float = 101.0,
    config: bool = False,
    spread: float = 0.0,
) -> Settled:
    """What follows from an outcome."""
    query = a_query(a_config_key() if config else a_key())
    return settle(now, query, asked_at, current, outcome, a_config_policy() if config else a_policy(), spread)


def test_an_allow_is_answered_and_stored_with_its_age_counted_from_the_question() -> None:
    result = settled(allowed(), spread=0.5)
    assert result.reply == Reply(200, ALLOW, Verdict.ALLOW)
    assert result.store == Entry(Verdict.ALLOW, ALLOW, 100.0, 101.0, ALLOW_LIFETIMES, 0.5)
    assert (result.denied, result.drop, result.private) == (False, False, False)


def test_a_deny_is_answered_stored_and_announced_as_one() -> None:
    result = settled(denied())
    assert result.reply == Reply(200, DENY, Verdict.DENY)
    assert result.store == Entry(Verdict.DENY, DENY, 100.0, 101.0, DENY_LIFETIMES)
    assert result.denied


def test_a_deny_with_an_error_status_is_answered_with_200_all_the_same() -> None:
    result = settled(Rejected(403, DENY, Verdict.DENY))
    assert result.reply == Reply(200, DENY, Verdict.DENY)
    assert result.store is not None
    assert result.denied


def test_a_config_is_answered_and_stored_with_its_own_lifetimes() -> None:
    result = settled(configured(), config=True)
    assert result.reply == Reply(200, CONFIG, Verdict.CONFIG)
    assert result.store == Entry(Verdict.CONFIG, CONFIG, 100.0, 101.0, CONFIG_LIFETIMES)
    assert not result.denied


def test_a_config_is_answered_with_200_whatever_success_the_backend_called_it() -> None:
    assert settled(Replied(201, CONFIG, Verdict.CONFIG), config=True).reply == Reply(200, CONFIG, Verdict.CONFIG)


@pytest.mark.parametrize("asked_at", [0.0, 99.0, 100.0, 100.5])
def test_a_deny_takes_the_place_of_any_allow_however_the_two_questions_crossed(asked_at: float) -> None:
    result = settled(denied(), current=an_entry(asked_at=asked_at, settled_at=100.9))
    assert result.store is not None
    assert result.store.verdict is Verdict.DENY
    assert result.denied


def test_an_allow_asked_before_a_deny_arrived_does_not_take_its_place() -> None:
    deny = an_entry(Verdict.DENY, asked_at=99.0, settled_at=100.5)
    result = settled(allowed(), current=deny)
    assert result == Settled(Reply(200, DENY, Verdict.DENY), outcome=allowed())


def test_not_even_an_allow_that_may_not_be_stored_removes_a_newer_deny() -> None:
    deny = an_entry(Verdict.DENY, asked_at=100.2, settled_at=100.5)
    result = settled(allowed(CacheControl(no_store=True)), current=deny)
    assert not result.drop
    assert result.reply == Reply(200, DENY, Verdict.DENY)


def test_an_older_way_into_the_lobby_does_not_take_the_place_of_a_newer_deny() -> None:
    deny = an_entry(Verdict.DENY, asked_at=99.0, settled_at=100.5)
    lobby = Replied(200, LOBBY_TOMBSTONE, Verdict.ALLOW)
    assert settled(lobby, current=deny).reply == Reply(200, DENY, Verdict.DENY)


def test_an_allow_that_lost_to_a_deny_still_tells_that_answers_are_private() -> None:
    deny = an_entry(Verdict.DENY, asked_at=99.0, settled_at=100.5)
    assert settled(allowed(CacheControl(private=True)), current=deny).private


def test_an_allow_that_came_too_late_to_be_stored_still_tells_that_answers_are_private() -> None:
    assert settled(allowed(CacheControl(private=True)), current=an_entry(asked_at=100.5)).private


@pytest.mark.parametrize("denied_at", [99.9, 100.0])
def test_an_allow_asked_after_a_deny_arrived_takes_its_place(denied_at: float) -> None:
    result = settled(allowed(), current=an_entry(Verdict.DENY, asked_at=98.0, settled_at=denied_at))
    assert result.store is not None
    assert result.store.verdict is Verdict.ALLOW
    assert result.reply == Reply(200, ALLOW, Verdict.ALLOW)


def test_an_older_allow_is_answered_but_does_not_take_the_place_of_a_newer_one() -> None:
    result = settled(allowed(), current=an_entry(asked_at=100.5))
    assert result.reply == Reply(200, ALLOW, Verdict.ALLOW)
    assert result.store is None
    assert not result.drop


def test_an_older_config_is_answered_but_does_not_take_the_place_of_a_newer_one() -> None:
    late = Replied(201, CONFIG, Verdict.CONFIG)
    result = settled(late, current=an_entry(Verdict.CONFIG, asked_at=100.5), config=True)
    assert result.reply == Reply(200, CONFIG, Verdict.CONFIG)
    assert result.store is None


def test_a_newer_allow_takes_the_place_of_an_older_one() -> None:
    result = settled(allowed(), current=an_entry(asked_at=99.0))
    assert result.store is not None
    assert result.store.asked_at == 100.0


def test_an_allow_that_may_not_be_stored_is_answered_and_what_was_known_is_forgotten() -> None:
    result = settled(allowed(CacheControl(no_store=True)), current=an_entry(asked_at=50.0))
    assert result.reply == Reply(200, ALLOW, Verdict.ALLOW)
    assert result.store is None
    assert result.drop


def test_a_deny_that_may_not_be_stored_leaves_a_tombstone_that_answers_nothing() -> None:
    result = settled(denied(CacheControl(no_store=True)), current=an_entry(asked_at=50.0))
    assert result.reply == Reply(200, DENY, Verdict.DENY)
    assert result.denied
    assert not result.drop
    assert result.store == Entry(Verdict.DENY, TOMBSTONE, 100.0, 101.0, Lifetimes(0, 0, 0))
    assert freshness(result.store, None, 101.0, NEVER) is Freshness.EXPIRED


def test_a_tombstone_still_keeps_out_an_allow_that_was_asked_before_it() -> None:
    tombstone = settled(denied(CacheControl(no_store=True)), asked_at=90.0, now=100.5).store
    assert settled(allowed(), current=tombstone).reply == Reply(200, TOMBSTONE, Verdict.DENY)


@pytest.mark.parametrize("said", [CacheControl(private=True), CacheControl(private=True, no_store=True)])
def test_private_is_passed_on_whatever_else_is_said(said: CacheControl) -> None:
    assert settled(allowed(said)).private
    assert settled(denied(said)).private


def test_an_answers_cache_control_shortens_what_is_stored() -> None:
    result = settled(allowed(CacheControl(max_age=5, must_revalidate=True)))
    assert result.store is not None
    assert result.store.lifetimes == Lifetimes(5, 0, 0)


@pytest.mark.parametrize(
    "outcome",
    [
        Unavailable("refused", Failure.UNSENT),
        Unavailable("the backend answered 503", status=503, retry_after=5),
        Misconfigured("the backend answered 401", 401),
    ],
)
@pytest.mark.parametrize("current", [None, an_entry(), an_entry(Verdict.DENY)])
def test_an_unavailable_backend_changes_nothing(outcome: Outcome, current: Entry | None) -> None:
    assert settled(outcome, current=current) == Settled(outcome=outcome)


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_rejected_config_is_passed_on_and_nothing_is_stored_or_forgotten(status: int) -> None:
    result = settled(unwanted(status), current=an_entry(Verdict.CONFIG), config=True)
    assert result == Settled(Reply(status, unwanted(status).body, None), outcome=unwanted(status))


@pytest.mark.parametrize("status", [404, 410])
def test_a_room_that_is_no_more_is_passed_on_and_its_old_config_forgotten(status: int) -> None:
    result = settled(unwanted(status), current=an_entry(Verdict.CONFIG), config=True)
    reply = Reply(status, unwanted(status).body, None)
    assert result == Settled(reply, drop=True, lessens=True, outcome=unwanted(status))


def test_each_verdict_has_the_limits_of_its_kind() -> None:
    policy = a_policy()
    assert policy.lifetimes(Verdict.ALLOW) == ALLOW_LIFETIMES
    assert policy.lifetimes(Verdict.DENY) == DENY_LIFETIMES
    assert a_config_policy().lifetimes(Verdict.CONFIG) == CONFIG_LIFETIMES
    assert policy.on_unavailable is OnUnavailable.REFUSE
