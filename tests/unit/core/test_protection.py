"""What can be read of the settings that protect a room."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.core.classify import classify
from sidecar.core.model import Failure, Kind, Replied, Unavailable
from sidecar.core.protection import PROTECTIVE, unreadable

FLAGS = ("membersOnly", "isPublic", "lobbyEnabled", "moderated", "hidden")


def readable(name: str, value: Any) -> bool:
    return unreadable({name: value}) == []


@pytest.mark.parametrize("name", PROTECTIVE)
@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_empty_text_are_as_good_as_absent(name: str, nothing: object) -> None:
    assert readable(name, nothing)


@pytest.mark.parametrize("name", PROTECTIVE)
@pytest.mark.parametrize("value", [[], [1], {}, {"value": True}, -1, float("inf")])
def test_what_could_mean_anything_is_not_read(name: str, value: object) -> None:
    assert not readable(name, value)


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [True, False, "true", "false", 1, 0])
def test_a_flag_may_be_written_in_three_ways(name: str, value: object) -> None:
    assert readable(name, value)


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", ["on", "1", "TRUE", " true", 2, -1, 0.5])
def test_but_in_no_other(name: str, value: object) -> None:
    assert not readable(name, value)


@pytest.mark.parametrize("value", ["open sesame", "4711", 4711, 0, 2**53 - 1, 4711.0])
def test_a_password_is_text_or_digits(value: object) -> None:
    assert readable("password", value)


@pytest.mark.parametrize("value", [True, False, -4711, 47.11, 2**53, 1e300])
def test_a_number_that_two_programs_may_write_in_two_ways_is_no_password(value: object) -> None:
    assert not readable("password", value)


@pytest.mark.parametrize("value", [0, 5, 5.0, "5", "0", 10**12])
def test_a_limit_is_a_whole_number_or_its_numeral(value: object) -> None:
    assert readable("maxParticipants", value)
    assert readable("maxDurationMinutes", value)


@pytest.mark.parametrize("value", [1.5, "1.5", "5 ", "five", "٥", "1e3", "-5", -5, True])
def test_and_nothing_else(value: object) -> None:
    assert not readable("maxParticipants", value)


@pytest.mark.parametrize(
    ("value", "can_be_read"), [(1.5, True), ("1.5", True), ("1.", False), (".5", False), ("1e3", False)]
)
def test_a_duration_may_have_a_fraction(value: object, can_be_read: bool) -> None:
    assert readable("maxDurationMinutes", value) is can_be_read


def test_such_a_config_is_no_answer_and_says_what_is_wrong() -> None:
    body = json.dumps({"password": ["x"], "membersOnly": "yes", "chatEnabled": "no"}).encode()
    reason = "password must be text; membersOnly must be true or false"
    assert classify(Kind.CONFIG, 200, body) == Unavailable(reason, Failure.UNREADABLE, 200, alive=True)


def test_a_config_that_can_be_read_is_passed_on_as_it_was_written() -> None:
    body = b'{"password": 4711, "membersOnly": "true", "maxParticipants": "5", "chatEnabled": "no"}'
    outcome = classify(Kind.CONFIG, 200, body)
    assert isinstance(outcome, Replied)
    assert outcome.body == body


def test_a_decision_may_hold_such_names() -> None:
    assert isinstance(classify(Kind.DECISION, 200, b'{"allowed": true, "password": []}'), Replied)
