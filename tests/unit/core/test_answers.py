"""From what is known to what Prosody gets."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sidecar.core.answers import ALLOWED_BY_POLICY, UNREACHABLE, remembered, replied, unavailable
from sidecar.core.model import Answer, Source, Unavailable, Verdict
from sidecar.core.policy import Freshness, OnUnavailable, Policy, Reply, Settled
from tests.unit.builders import (
    ALLOW,
    CONFIG,
    DENY,
    a_config_key,
    a_config_policy,
    a_policy,
    a_query,
    allowed,
    an_entry,
    unwanted,
)


def policy_that(on_unavailable: OnUnavailable, default: bytes | None = None) -> Policy:
    """A policy for when nothing is known."""
    return dataclasses.replace(a_policy(), on_unavailable=on_unavailable, default_body=default)


# ---- from memory


def test_a_fresh_answer_is_a_hit_and_says_how_long_it_stays_so() -> None:
    answer = remembered(an_entry(asked_at=100.0), Freshness.FRESH, a_policy(), 103.5)
    assert answer == Answer(200, ALLOW, Source.HIT, allowed=True, ttl=11)


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        (Freshness.REVALIDATE, "stale-while-revalidate"),
        (Freshness.STALE, "stale-if-error"),
        (Freshness.SUSPECT, "suspect"),
    ],
)
def test_a_stale_answer_says_since_when_and_why(state: Freshness, detail: str) -> None:
    answer = remembered(an_entry(asked_at=100.0), state, a_policy(), 355.0)
    assert answer == Answer(200, ALLOW, Source.STALE, allowed=True, ttl=-240, detail=detail)


def test_a_remembered_deny_and_config_say_what_they_are() -> None:
    assert remembered(an_entry(Verdict.DENY), Freshness.FRESH, a_policy(), 0.0).allowed is False
    config = remembered(an_entry(Verdict.CONFIG), Freshness.FRESH, a_config_policy(), 0.0)
    assert (config.body, config.allowed, config.ttl) == (CONFIG, None, 5)


# ---- from the backend


@pytest.mark.parametrize(
    ("before", "forwarded"),
    [(Freshness.MISSING, "miss"), (Freshness.EXPIRED, "stale"), (Freshness.STALE, "stale")],
)
def test_an_answer_of_the_backend_says_why_it_was_asked(before: Freshness, forwarded: str) -> None:
    settled = Settled(store=an_entry(), outcome=allowed())
    answer = replied(Reply(200, ALLOW, Verdict.ALLOW), settled, before, collapsed=False)
    assert answer == Answer(200, ALLOW, Source.BACKEND, allowed=True, forwarded=forwarded, stored=True)


def test_an_answer_that_was_asked_for_by_somebody_else_says_so() -> None:
    answer = replied(Reply(200, DENY, Verdict.DENY), Settled(), Freshness.MISSING, collapsed=True)
    assert (answer.collapsed, answer.stored, answer.allowed) == (True, False, False)


def test_a_rejection_keeps_the_backends_status() -> None:
    settled = Settled(outcome=unwanted(404))
    answer = replied(Reply(404, b"{}", None), settled, Freshness.MISSING, collapsed=False)
    assert answer == Answer(404, b"{}", Source.REJECTED, forwarded="miss", forward_status=404)


# ---- from the policy

FAILED = Settled(outcome=Unavailable("the backend answered 503", status=503))


def test_an_unknown_user_is_refused_with_a_reason() -> None:
    answer = unavailable(a_query(), None, a_policy())
    assert answer == Answer(200, UNREACHABLE, Source.POLICY, allowed=False, detail="refused", retry_after=1)
    assert json.loads(answer.body)["allowed"] is False


def test_an_unknown_room_is_refused_with_503() -> None:
    answer = unavailable(a_query(a_config_key()), None, a_config_policy(), asked=FAILED, retry_after=2.1)
    assert answer == Answer(
        503, b"", Source.POLICY, forwarded="miss", forward_status=503, detail="refused", retry_after=3
    )


@pytest.mark.parametrize(("due", "seconds"), [(-3.0, 1), (0.0, 1), (0.4, 1), (1.0, 1), (1.2, 2)])
def test_nobody_is_asked_to_come_back_at_once(due: float, seconds: int) -> None:
    assert unavailable(a_query(), None, a_policy(), retry_after=due).retry_after == seconds


@pytest.mark.parametrize(
    ("before", "forwarded"), [(Freshness.MISSING, "miss"), (Freshness.EXPIRED, "stale"), (Freshness.SUSPECT, "stale")]
)
def test_a_refusal_says_what_asking_came_to(before: Freshness, forwarded: str) -> None:
    answer = unavailable(a_query(), None, a_policy(), asked=FAILED, before=before)
    assert (answer.forwarded, answer.forward_status) == (forwarded, 503)


def test_a_refusal_after_a_crash_knows_no_status() -> None:
    answer = unavailable(a_query(), None, a_policy(), asked=Settled())
    assert (answer.forwarded, answer.forward_status) == ("miss", None)


@pytest.mark.parametrize("entry", [None, an_entry()])
def test_on_unavailable_allow_lets_an_unknown_user_in(entry: None) -> None:
    answer = unavailable(a_query(), entry, policy_that(OnUnavailable.ALLOW))
    assert answer == Answer(200, ALLOWED_BY_POLICY, Source.POLICY, allowed=True, detail="allowed-by-policy")
    assert json.loads(ALLOWED_BY_POLICY)["allowed"] is True


def test_on_unavailable_allow_does_not_let_in_a_user_with_an_expired_deny() -> None:
    answer = unavailable(a_query(), an_entry(Verdict.DENY, asked_at=-1e9), policy_that(OnUnavailable.ALLOW))
    assert (answer.allowed, answer.detail) == (False, "refused")


def test_an_operator_may_give_unknown_rooms_a_config() -> None:
    answer = unavailable(a_query(a_config_key()), None, policy_that(OnUnavailable.DEFAULT, CONFIG))
    assert answer == Answer(200, CONFIG, Source.POLICY, detail="default")


def test_without_a_default_config_an_unknown_room_is_refused_all_the_same() -> None:
    assert unavailable(a_query(a_config_key()), None, policy_that(OnUnavailable.DEFAULT)).status == 503
