"""Which policy applies to which room."""

from __future__ import annotations

import pytest

from sidecar.config.loader import parse
from sidecar.config.policies import policies_from
from sidecar.core.model import Endpoint, Lifetimes
from sidecar.core.policy import OnUnavailable, Policy

DECISION, CONFIG = Endpoint.VALIDATE_ACCESS, Endpoint.ROOM_CREATED


def policy_of(text: str, room: str = "standup", endpoint: Endpoint = DECISION) -> Policy:
    return policies_from(parse("backend: {url: http://127.0.0.1:1}\n" + text, "f"))(endpoint, room)


def test_without_patterns_the_endpoints_own_rules_apply() -> None:
    policy = policy_of("")
    assert policy.matched is None
    assert policy.allow == Lifetimes(15, 15, 3600)
    assert policy.deny == Lifetimes(5, 0, 3600)
    assert policy.on_unavailable is OnUnavailable.REFUSE
    assert policy_of("", endpoint=CONFIG).allow == Lifetimes(5, 0, 86_400)


@pytest.mark.parametrize(
    ("pattern", "room", "fits"),
    [
        ("standup", "standup", True),
        ("standup", "standup-2", False),
        ("stand*", "standup", True),
        ("*", "", True),
        ("*up", "standup", True),
        ("st?ndup", "standup", True),
        ("st?ndup", "stndup", False),
        ("[tenant]*", "[tenant]standup", True),
        ("[tenant]*", "t", False),
        ("a.b", "axb", False),
        ("a+", "aa", False),
        ("*", "two\nlines", True),
        ("Standup", "standup", False),
        ("(x", "(x", True),
    ],
)
def test_a_pattern_knows_only_star_and_question_mark(pattern: str, room: str, fits: bool) -> None:
    policy = policy_of(f"rooms: [{{match: '{pattern}', validate-access: {{on_unavailable: allow}}}}]", room)
    assert (policy.on_unavailable is OnUnavailable.ALLOW) is fits
    assert policy.matched == (pattern if fits else None)


def test_the_first_pattern_that_fits_wins_as_a_whole() -> None:
    text = """
rooms:
  - {match: "lecture-big", validate-access: {answer_within: 1.5}}
  - {match: "lecture-*", validate-access: {on_unavailable: allow}}
"""
    policy = policy_of(text, "lecture-big")
    assert (policy.answer_within, policy.on_unavailable) == (1.5, OnUnavailable.REFUSE)
    assert policy_of(text, "lecture-small").on_unavailable is OnUnavailable.ALLOW
    assert policy_of(text, "seminar").on_unavailable is OnUnavailable.REFUSE


def test_what_a_pattern_does_not_name_stays_as_the_operator_set_it_for_all() -> None:
    text = """
endpoints:
  validate-access: {deadline: 3, allow: {fresh: 7, stale_if_error: 70}}
rooms:
  - {match: "*", validate-access: {allow: {fresh: 1}}}
"""
    policy = policy_of(text)
    assert policy.allow == Lifetimes(1, 15, 70)
    assert (policy.deadline, policy.deny) == (3, Lifetimes(5, 0, 3600))


def test_a_lifetime_of_zero_is_a_value_and_not_an_absence() -> None:
    text = "rooms: [{match: '*', validate-access: {allow: {stale_if_error: 0}}, room-created: {fresh: 0}}]"
    assert policy_of(text).allow.stale_if_error == 0
    assert policy_of(text, endpoint=CONFIG).allow.fresh == 0


def test_the_default_settings_are_there_where_they_are_asked_for() -> None:
    text = """
default_room_config: {lobbyEnabled: true, chatEnabled: false}
rooms: [{match: "lecture-*", room-created: {on_unavailable: default}}]
"""
    policy = policy_of(text, "lecture-1", CONFIG)
    assert policy.on_unavailable is OnUnavailable.DEFAULT
    assert policy.default_body == b'{"lobbyEnabled":true,"chatEnabled":false}'
    assert policy_of(text, "other", CONFIG).on_unavailable is OnUnavailable.REFUSE
