"""The vocabulary: what an endpoint is for, how lifetimes combine, and that nobody can change what was said."""

from __future__ import annotations

import pytest

from sidecar.core.model import GUEST, Answer, Endpoint, Kind, Lifetimes, Query, Source
from tests.unit.builders import ALLOW, a_key, an_entry


def test_every_endpoint_is_for_one_thing() -> None:
    assert {endpoint.value: endpoint.kind for endpoint in Endpoint} == {
        "room-created": Kind.CONFIG,
        "validate-access": Kind.DECISION,
        "user-joined": Kind.EVENT,
        "user-left": Kind.EVENT,
        "room-destroyed": Kind.EVENT,
        "moderator-changed": Kind.EVENT,
        "recording": Kind.EVENT,
        "order-expired": Kind.EVENT,
    }


def test_a_question_for_one_guest_differs_from_the_shared_one_only_in_the_subject() -> None:
    query = Query(a_key(subject=GUEST), b"{}", 12.5, caller="x7@guests.example.org", traceparent="trace")
    single, other = query.for_one_guest(), query._replace(caller="y8@guests.example.org").for_one_guest()
    assert single.key.subject not in (GUEST, other.key.subject)
    assert single._replace(key=query.key) == query
    assert single.key._replace(subject=GUEST) == query.key


def test_lifetimes_end_with_fresh_and_the_larger_stale_limit() -> None:
    assert Lifetimes(5, 10, 20).total == 25
    assert Lifetimes(5, 20, 10).total == 25


def test_the_shorter_of_two_lifetimes_is_taken_limit_by_limit() -> None:
    assert Lifetimes(5, 10, 20).at_most(Lifetimes(10, 5, 20)) == Lifetimes(5, 5, 20)
    same = Lifetimes(1, 2, 3)
    assert same.at_most(same) == same


def test_what_was_said_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        an_entry().asked_at = 0.0  # type: ignore[misc]


def test_no_answer_shows_up_in_a_log_by_accident() -> None:
    assert ALLOW.decode() not in repr(an_entry())
    assert "secret body" not in repr(Query(a_key(), b"secret body", 0.0))


def test_no_body_shows_where_something_is_shown_for_a_defect() -> None:
    body = b'{"password":"hidden"}'
    shown = [
        Query(a_key(), body, 12.5),
        Answer(200, body, Source.HIT, detail="suspect"),
        an_entry()._replace(body=body),
    ]
    assert all("hidden" not in repr(each) for each in shown)
    assert repr(shown[1]) == "Answer(200, hit, detail='suspect')"
