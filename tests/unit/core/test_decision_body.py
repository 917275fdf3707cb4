"""What a decision says beside yes or no: kept as it came, and never less protection because of a wrong type."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.classify import classify
from sidecar.core.decision_body import (
    Decision,
    aged,
    configuration_in,
    counts_more,
    in_words,
    is_personal,
    read_decision,
    requires_lobby,
    stamped,
)
from sidecar.core.model import CacheControl, Entry, Kind, Lifetimes, Rejected, Replied, Verdict
from tests.unit.builders import ALLOW, DENY, LOBBY

FIELDS: dict[str, Any] = {
    "isModerator": True,
    "requireLobby": True,
    "remainingMinutes": 12.5,
    "status": "CANCELLED",
    "requireAuth": True,
    "redirectUrl": "https://example.com/login?room=ü",
    "configuration": {"password": "pass", "chatEnabled": False},
    "unknown": [1, {"deep": None}],
}
"""One good value for each field."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def said(**fields: Any) -> dict[str, Any]:
    """The body of the decision that is kept of an allow with these fields."""
    body: dict[str, Any] = json.loads(decision(**fields).body)
    return body


def decision(allowed: bool = True, **fields: Any) -> Decision:
    """What is kept of a decision with these fields."""
    return read_decision({"allowed": allowed, **fields})


@pytest.mark.parametrize("allowed", [True, False])
def test_every_field_is_kept_as_it_came(allowed: bool) -> None:
    assert said(allowed=allowed, **FIELDS) == {"allowed": allowed, "reason": None, **FIELDS}
    assert decision(allowed, **FIELDS).remark == ""


@pytest.mark.parametrize("name", ["isModerator", "requireLobby", "requireAuth"])
@pytest.mark.parametrize(("value", "read"), [("true", True), (1, True), ("false", False), (0, False), (False, False)])
def test_a_flag_is_read_where_its_meaning_is_beyond_doubt(name: str, value: Any, read: bool) -> None:
    assert said(**{name: value})[name] is read
    assert decision(**{name: value}).remark == ""


@pytest.mark.parametrize(("value", "read"), [("7", 7), ("7.5", 7.5), (-3, 0), ("-3", 0), (0, 0), (1e300, 2**31 - 1)])
def test_minutes_are_a_number_from_0_on(value: object, read: float) -> None:
    assert said(remainingMinutes=value)["remainingMinutes"] == read


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "unknown"])
@pytest.mark.parametrize("value", [None, ""])
def test_null_and_empty_text_are_as_good_as_absent(name: str, value: Any) -> None:
    if name == "configuration" and value == "":
        value = None
    kept = decision(**{name: value})
    assert json.loads(kept.body).get(name) is None
    assert (kept.personal, kept.remark) == (False, "")


@pytest.mark.parametrize("value", ["yes", 2, -1, [True], {"for": "me"}, []])
def test_a_lobby_that_cannot_be_read_is_required(value: object) -> None:
    kept = decision(requireLobby=value)
    assert (requires_lobby(kept.body), kept.personal) == (True, True)
    assert kept.remark == "requireLobby must be true or false; the user waits in the lobby"


@pytest.mark.parametrize("value", ["yes", 2, -1, [True], {"for": "me"}, []])
def test_a_moderator_that_cannot_be_read_is_none(value: object) -> None:
    kept = decision(isModerator=value)
    assert "isModerator" not in json.loads(kept.body)
    assert kept.remark == "isModerator must be true or false; it is left out"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("remainingMinutes", "soon"),
        ("remainingMinutes", True),
        ("status", 7),
        ("status", "x" * 101),
        ("requireAuth", "perhaps"),
        ("redirectUrl", ["https://example.com"]),
        ("redirectUrl", "https://example.com/" + "x" * 2000),
        ("configuration", "none"),
        ("configuration", {"password": ["secret"]}),
        ("configuration", {"membersOnly": "perhaps"}),
    ],
)
def test_what_cannot_be_read_is_left_out_and_named(field: str, value: object) -> None:
    kept = decision(allowed=False, reason="no", **{field: value})
    assert json.loads(kept.body) == {"allowed": False, "reason": "no"}
    assert kept.remark.startswith(field)
    assert "secret" not in kept.remark


@given(st.dictionaries(st.sampled_from(list(FIELDS)), JSON))
def test_no_value_stops_a_decision_or_opens_anything(fields: dict[str, Any]) -> None:
    kept = decision(**fields)
    body = json.loads(kept.body)
    assert body["allowed"] is True
    assert body.get("isModerator") in (True, False, None)
    assert isinstance(body.get("configuration", {}), dict | None)
    if fields.get("requireLobby") not in (None, "", False, 0, "false"):
        assert requires_lobby(kept.body)
    assert kept.personal == is_personal(kept.body) or "unknown" in fields or "configuration" in fields


@given(JSON, st.booleans())
def test_what_cannot_be_written_takes_nothing_along_that_protects(value: object, allowed: bool) -> None:
    text = f'{{"x": 1e999, "requireLobby": true, "remainingMinutes": 3, "allowed": {json.dumps(allowed)}}}'
    outcome = classify(Kind.DECISION, 200, text.encode())
    assert isinstance(outcome, Replied)
    assert json.loads(outcome.body) == {
        "allowed": allowed,
        "reason": None,
        "requireLobby": True,
        "remainingMinutes": 3,
    }


@pytest.mark.parametrize("name", ["isModerator", "requireLobby", "redirectUrl"])
@pytest.mark.parametrize("status", [200, 403])
def test_a_field_about_one_person_makes_the_answer_private(name: str, status: int) -> None:
    body = json.dumps({"allowed": False, name: FIELDS[name]}).encode()
    outcome = classify(Kind.DECISION, status, body, "max-age=5")
    assert isinstance(outcome, Replied | Rejected)
    assert outcome.cache_control == CacheControl(private=True, max_age=5)


def test_false_is_about_one_person_too() -> None:
    assert decision(isModerator=False).personal


@pytest.mark.parametrize("name", ["remainingMinutes", "status", "requireAuth", "configuration", "unknown"])
def test_other_fields_may_be_shared(name: str) -> None:
    assert not decision(**{name: FIELDS[name]}).personal


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_remaining_minutes_shrink_with_the_age_and_never_below_0(minutes: float, seconds: float) -> None:
    left = json.loads(aged(decision(remainingMinutes=minutes).body, seconds))["remainingMinutes"]
    assert 0 <= left <= minutes
    assert left == pytest.approx(max(0.0, minutes - seconds / 60), abs=0.011)


@pytest.mark.parametrize("left_out", [{}, {"isModerator": True, "unknown": {"remainingMinutes": 7}}])
def test_a_body_without_minutes_stays_byte_for_byte(left_out: dict[str, Any]) -> None:
    body = decision(**left_out).body
    assert aged(body, 1e9) is body


def test_minutes_of_an_older_version_that_are_no_number_do_no_harm() -> None:
    body = b'{"allowed":true,"reason":null,"remainingMinutes":"ten"}'
    assert aged(body, 60) == body
    assert in_words(body) == []


def test_the_rest_of_a_body_stays_when_the_minutes_shrink() -> None:
    body = decision(**FIELDS).body
    assert json.loads(aged(body, 90)) == {"allowed": True, "reason": None, **FIELDS, "remainingMinutes": 11}


def test_a_body_says_who_decided_and_under_which_id() -> None:
    body = json.loads(stamped(decision(decidedBy="me", decisionId=7, isModerator=True).body, "memory", "ab"))
    assert body == {"allowed": True, "reason": None, "isModerator": True, "decidedBy": "memory", "decisionId": "ab"}


def test_a_configuration_is_found_in_the_decision_itself_only() -> None:
    assert json.loads(configuration_in(decision(**FIELDS).body) or b"") == FIELDS["configuration"]
    assert configuration_in(decision(unknown={"configuration": {}}).body) is None
    assert configuration_in(b'{"allowed":true,"reason":null,"configuration":7}') is None


def test_an_operator_reads_what_a_decision_says() -> None:
    assert in_words(decision(**FIELDS).body) == [
        "is a moderator",
        "waits in the lobby",
        "status CANCELLED",
        "has to log in",
        "is sent to another page",
        "with a room config",
        "the meeting lasted another 12.5 min then",
    ]


def asked_and_answered(body: bytes, asked_at: float, settled_at: float) -> Entry:
    verdict = Verdict.DENY if b"false" in body else Verdict.ALLOW
    return Entry(verdict, body, asked_at, settled_at, Lifetimes(1, 1, 1))


@pytest.mark.parametrize(("strict", "other"), [(DENY, ALLOW), (DENY, LOBBY), (LOBBY, ALLOW)])
def test_of_two_answers_that_were_under_way_at_once_the_stricter_one_counts(strict: bytes, other: bytes) -> None:
    first, second = asked_and_answered(strict, 10.0, 13.0), asked_and_answered(other, 12.0, 14.0)
    assert counts_more(first, second)
    assert not counts_more(second, first)


@pytest.mark.parametrize("first", [DENY, LOBBY, ALLOW])
@pytest.mark.parametrize("second", [DENY, LOBBY, ALLOW])
def test_of_two_answers_the_one_counts_that_was_asked_for_when_the_other_was_known(first: bytes, second: bytes) -> None:
    early, late = asked_and_answered(first, 10.0, 11.0), asked_and_answered(second, 12.0, 13.0)
    assert counts_more(late, early)
    assert not counts_more(early, late)
