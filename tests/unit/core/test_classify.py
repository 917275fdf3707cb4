"""What an answer of the backend means: every status, every body, every kind, against the words of the contract."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.classify import CLASSES, classify, parse_cache_control
from sidecar.core.model import (
    CacheControl,
    Failure,
    Kind,
    Misconfigured,
    Outcome,
    Rejected,
    Replied,
    Unavailable,
    Verdict,
)
from sidecar.core.xml_text import fit_for_xml

ALLOWING = {
    "true": b'{"allowed": true}',
    "true with more": b' {"reason": null, "allowed": true, "meetingTitle": "Standup", "seats": 3} ',
    "true by an escaped name": b'{"\\u0061llowed": true}',
}
DENYING = {
    "false": b'{"allowed": false}',
    "false with a reason": b'{"allowed": false, "reason": "not invited"}',
    "false, another member twice": b'{"allowed": false, "reason": "a", "reason": "b"}',
}
UNDECIDED = {
    "empty object": b"{}",
    "allowed is 1": b'{"allowed": 1}',
    "allowed is 0": b'{"allowed": 0}',
    "allowed is 1.0": b'{"allowed": 1.0}',
    "allowed is null": b'{"allowed": null}',
    "allowed is a text": b'{"allowed": "true"}',
    "allowed is a list": b'{"allowed": [true]}',
    "allowed is an object": b'{"allowed": {"allowed": true}}',
    "allowed in capitals": b'{"Allowed": true, "ALLOWED": true}',
    "allowed only further in": b'{"data": {"allowed": true}}',
}
GARBAGE = {
    "nothing": b"",
    "blank": b" \r\n",
    "HTML": b"<html><h1>404 Not Found</h1></html>",
    "a text": b'"allowed"',
    "true alone": b"true",
    "null": b"null",
    "a number": b"1",
    "a list": b'[{"allowed": true}]',
    "half a body": b'{"allowed": true',
    "something behind": b'{"allowed": true} {"allowed": true}',
    "a NUL behind": b'{"allowed": true}\x00',
    "allowed twice": b'{"allowed": false, "allowed": true}',
    "allowed twice alike": b'{"allowed": true, "allowed": true}',
    "allowed twice, once escaped": b'{"allowed": false, "\\u0061llowed": true}',
    "NaN": b'{"allowed": true, "x": NaN}',
    "Infinity": b'{"allowed": true, "x": -Infinity}',
    "a byte order mark": b'\xef\xbb\xbf{"allowed": true}',
    "UTF-16": '{"allowed": true}'.encode("utf-16"),
    "Latin-1": '{"allowed": true, "reason": "Zoë"}'.encode("latin-1"),
    "a raw lone surrogate": b'{"allowed": true, "reason": "\xed\xa0\x80"}',
    "a comment": b'{"allowed": true /* sure */}',
    "single quotes": b"{'allowed': true}",
    "a raw line break in a text": b'{"allowed": true, "reason": "a\nb"}',
    "an integer without end": b'{"allowed": true, "x": ' + b"9" * 5000 + b"}",
    "lists without end": b'{"allowed": true, "x": ' + b"[" * 200_000,
    "deep nesting": b'{"allowed": true, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
OBJECTS = ALLOWING | DENYING | UNDECIDED
BODIES = OBJECTS | GARBAGE
STATUSES = range(600)


def by_the_contract(kind: Kind, status: int, name: str) -> type[Outcome]:
    """Section 3, read aloud."""
    success, client_error = 200 <= status <= 299, 400 <= status <= 499
    if kind is Kind.DECISION:
        if success and (name in ALLOWING or name in DENYING):
            return Replied
        if client_error and name in DENYING:
            return Rejected
    if kind is Kind.CONFIG:
        if success and name in OBJECTS:
            return Replied
        if status in (400, 404, 409, 410, 422) and name in OBJECTS:
            return Rejected
    if kind is Kind.EVENT:
        if success:
            return Replied
        if status in (400, 409, 410, 413, 422) or (status == 404 and name in OBJECTS):
            return Rejected
    return Misconfigured if status in (401, 403) else Unavailable


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("name", BODIES)
def test_every_status_with_every_body_is_of_the_class_the_contract_names(kind: Kind, name: str) -> None:
    statuses = STATUSES if len(BODIES[name]) < 1000 else (200, 204, 302, 400, 401, 403, 404, 410, 413, 429, 500)
    found = {status: type(classify(kind, status, BODIES[name])) for status in statuses}
    assert found == {status: by_the_contract(kind, status, name) for status in statuses}


def test_the_published_table_leaves_no_answer_without_a_class() -> None:
    last = CLASSES[-1]
    assert last.kinds == set(Kind)
    assert last.statuses >= set(range(1000))
    assert classify(Kind.DECISION, 999, b"") == Unavailable("the backend answered 999", Failure.USELESS, 999)


@pytest.mark.parametrize("name", ALLOWING)
def test_a_decision_that_lets_in_is_an_allow(name: str) -> None:
    outcome = classify(Kind.DECISION, 200, ALLOWING[name])
    assert isinstance(outcome, Replied)
    assert outcome.verdict is Verdict.ALLOW


@pytest.mark.parametrize("status", [200, 403, 404, 429])
@pytest.mark.parametrize("name", DENYING)
def test_a_decision_that_keeps_out_is_a_deny_at_any_status_that_may_say_so(name: str, status: int) -> None:
    outcome = classify(Kind.DECISION, status, DENYING[name])
    assert isinstance(outcome, Replied | Rejected)
    assert (outcome.verdict, outcome.status) == (Verdict.DENY, status)


@pytest.mark.parametrize("name", [*ALLOWING, *UNDECIDED, *GARBAGE])
def test_nothing_but_a_success_can_let_anybody_in_or_keep_anybody_out_who_is_not_denied(name: str) -> None:
    for status in (100, 199, 300, 304, *range(400, 600, 1 if len(BODIES[name]) < 1000 else 10)):
        assert not isinstance(classify(Kind.DECISION, status, BODIES[name]), Replied | Rejected)


def test_a_config_is_passed_on_byte_for_byte() -> None:
    body = b' { "moderated" : false, "moderated": true, "unknown": [1e999, "\\ud83d\\ude00"], "allowed": "x" }\n'
    assert classify(Kind.CONFIG, 200, body) == Replied(200, body, Verdict.CONFIG)


def test_a_rejected_config_is_passed_on_byte_for_byte_and_says_nothing_about_anybody() -> None:
    body = b'{ "allowed": false }'
    assert classify(Kind.CONFIG, 404, body) == Rejected(404, body, None)


def test_the_answer_to_an_event_says_nothing_about_anybody() -> None:
    assert classify(Kind.EVENT, 202, b'{"allowed": true}') == Replied(202, b'{"allowed": true}', None)
    assert classify(Kind.EVENT, 410, b'{"allowed": false}') == Rejected(410, b'{"allowed": false}', None)


def decided(body: bytes) -> object:
    """The decision that is written again from such an answer."""
    outcome = classify(Kind.DECISION, 200, body)
    assert isinstance(outcome, Replied), outcome
    return json.loads(outcome.body)


def test_a_decision_always_says_a_reason_and_keeps_what_else_it_came_with() -> None:
    assert decided(b'{"allowed": true, "seats": {"left": 3}}') == {
        "allowed": True,
        "reason": None,
        "seats": {"left": 3},
    }


def test_the_last_of_two_reasons_counts() -> None:
    assert decided(b'{"allowed": false, "reason": "a", "reason": "b"}') == {"allowed": False, "reason": "b"}


@pytest.mark.parametrize("value", [b"1", b"true", b'["no"]', b'{"text":"no"}', b"null"])
def test_a_reason_or_title_that_is_no_text_is_left_out(value: bytes) -> None:
    body = b'{"allowed": false, "reason": ' + value + b', "meetingTitle": ' + value + b"}"
    assert decided(body) == {"allowed": False, "reason": None}


def test_a_reason_and_a_title_that_are_texts_are_kept() -> None:
    body = '{"meetingTitle": "Größe 🙂", "reason": "zu spät", "allowed": false}'.encode()
    assert decided(body) == {"allowed": False, "reason": "zu spät", "meetingTitle": "Größe 🙂"}


@pytest.mark.parametrize("member", ["reason", "meetingTitle"])
def test_half_a_character_does_not_turn_a_deny_into_garbage_nor_reach_prosody(member: str) -> None:
    body = b'{"allowed": false, "' + member.encode() + b'": "cut \\ud83d off \\ud83d\\ude42"}'
    decision = decided(body)
    assert isinstance(decision, dict)
    assert decision[member] == "cut \ufffd off 🙂"


def test_a_number_beyond_all_bounds_is_left_out_rather_than_written_as_something_that_is_not_json() -> None:
    assert decided(b'{"allowed": true, "x": 1e999}') == {"allowed": True, "reason": None}
    outcome = classify(Kind.DECISION, 403, b'{"allowed": false, "reason": "no", "x": [-1e999]}')
    assert outcome == Rejected(403, b'{"allowed":false,"reason":"no"}', Verdict.DENY)


def nested(depth: int, opening: bytes, closing: bytes) -> bytes:
    return b'{"allowed":true,"x":' + opening * depth + b"0" + closing * depth + b"}"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_no_depth_of_nesting_makes_classifying_fail(opening: bytes, closing: bytes) -> None:
    """Writing needs a little more of the stack than reading; where one is possible and not the other is found here."""
    legible, illegible = 1, 200_000
    while illegible - legible > 1:
        depth = (legible + illegible) // 2
        fine = isinstance(classify(Kind.CONFIG, 200, nested(depth, opening, closing)), Replied)
        legible, illegible = (depth, illegible) if fine else (legible, depth)
    outcomes = [
        classify(Kind.DECISION, 200, nested(depth, opening, closing)) for depth in range(legible - 20, legible + 20)
    ]
    assert {type(outcome) for outcome in outcomes} == {Replied, Unavailable}


def with_a_little_stack(frames: int, body: bytes) -> Outcome:
    return classify(Kind.DECISION, 200, body) if frames == 0 else with_a_little_stack(frames - 1, body)


def test_what_can_be_written_again_can_be_read_again() -> None:
    for frames in range(0, 60, 7):
        outcome = with_a_little_stack(frames, nested(900, b"[", b"]"))
        assert isinstance(outcome, Replied | Unavailable)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["allowed", "reason", "meetingTitle", "seats"]) | st.text(), JSON))
def test_whatever_object_the_backend_sends_is_an_allow_only_if_it_says_true(document: dict[str, object]) -> None:
    body = json.dumps(document).encode()
    outcome, document = classify(Kind.DECISION, 200, body), json.loads(fit_for_xml(body))
    if isinstance(document.get("allowed"), bool):
        assert isinstance(outcome, Replied)
        assert (outcome.verdict is Verdict.ALLOW) is document["allowed"]
        written = json.loads(outcome.body)
        assert written["allowed"] is document["allowed"]
        assert written["reason"] is None or isinstance(written["reason"], str)
        rest = {name: value for name, value in document.items() if name not in ("reason", "meetingTitle")}
        assert rest.items() <= written.items()
    else:
        assert isinstance(outcome, Unavailable)


@given(st.sampled_from(Kind), st.integers(0, 999), st.binary(max_size=60))
def test_no_answer_whatsoever_makes_classifying_fail(kind: Kind, status: int, body: bytes) -> None:
    outcome = classify(kind, status, body)
    if kind is Kind.DECISION and isinstance(outcome, Replied | Rejected):
        assert json.loads(body)["allowed"] is (outcome.verdict is Verdict.ALLOW)


def test_a_misconfigured_answer_names_its_status() -> None:
    assert classify(Kind.CONFIG, 401, b"{}") == Misconfigured("the backend answered 401", 401, alive=True)


@pytest.mark.parametrize(
    ("kind", "status", "body", "reason"),
    [
        (Kind.DECISION, 200, b"<html>", "the body of the 200 is HTML or XML, and must be JSON"),
        (Kind.CONFIG, 200, b"[]", "the body of the 200 is an array, and must be a JSON object"),
        (Kind.DECISION, 200, b"{}", "the body of the 200 has no boolean `allowed`"),
        (Kind.DECISION, 404, b"<html>", "the backend answered 404"),
        (Kind.CONFIG, 302, b"", "the backend answered 302"),
        (Kind.EVENT, 503, b"{}", "the backend answered 503"),
    ],
)
def test_an_unavailable_answer_says_what_was_wrong(kind: Kind, status: int, body: bytes, reason: str) -> None:
    assert classify(kind, status, body) == Unavailable(reason, Failure.USELESS, status)


@pytest.mark.parametrize(("status", "body"), [(404, b"{}"), (400, b'{"error":"name"}'), (403, b"[]"), (418, b" {} ")])
def test_a_client_error_in_json_is_a_proof_of_life_whatever_it_says(status: int, body: bytes) -> None:
    outcome = classify(Kind.DECISION, status, body)
    assert isinstance(outcome, Unavailable | Misconfigured)
    assert outcome.alive


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"<html>"), (404, b""), (404, b'"not found"'), (404, b'{"half'), (500, b"{}"), (302, b"{}"), (429, b"{}")],
)
def test_an_error_page_a_server_error_and_too_many_requests_are_none(status: int, body: bytes) -> None:
    outcome = classify(Kind.DECISION, status, body)
    assert isinstance(outcome, Unavailable)
    assert not outcome.alive


def test_an_unavailable_answer_passes_on_how_long_to_wait() -> None:
    outcome = classify(Kind.DECISION, 503, b"", retry_after=7.0)
    assert isinstance(outcome, Unavailable)
    assert outcome.retry_after == 7.0


@pytest.mark.parametrize("status", [200, 403])
def test_replied_and_rejected_answers_pass_on_their_cache_control(status: int) -> None:
    outcome = classify(Kind.DECISION, status, DENYING["false"], "no-store")
    assert isinstance(outcome, Replied | Rejected)
    assert outcome.cache_control == CacheControl(no_store=True)


@pytest.mark.parametrize(
    ("header", "meaning"),
    [
        ("", CacheControl()),
        ("public, immutable", CacheControl()),
        ("no-store", CacheControl(no_store=True)),
        ("No-Store , PRIVATE", CacheControl(no_store=True, private=True)),
        ("private=x-user", CacheControl(private=True)),
        ("must-revalidate", CacheControl(must_revalidate=True)),
        ("no-cache", CacheControl(must_revalidate=True, max_age=0)),
        ("no-cache, max-age=60", CacheControl(must_revalidate=True, max_age=0)),
        ("max-age=60", CacheControl(max_age=60)),
        ('max-age="60"', CacheControl(max_age=60)),
        ("max-age = 60", CacheControl(max_age=60)),
        ("max-age=60, max-age=5", CacheControl(max_age=5)),
        ("max-age=5, max-age=60", CacheControl(max_age=5)),
        ("max-age", CacheControl(max_age=0)),
        ("max-age=", CacheControl(max_age=0)),
        ("max-age=-1", CacheControl(max_age=0)),
        ("max-age=1.5", CacheControl(max_age=0)),
        ("max-age=soon", CacheControl(max_age=0)),
        ("max-age=¹²", CacheControl(max_age=0)),
        ("max-age=٣", CacheControl(max_age=0)),
        ("stale-while-revalidate=7, stale-if-error=8", CacheControl(stale_while_revalidate=7, stale_if_error=8)),
    ],
)
def test_cache_control_is_read_leniently_but_never_to_the_longer(header: str, meaning: CacheControl) -> None:
    assert parse_cache_control(header) == meaning


def test_a_max_age_of_any_length_is_a_number() -> None:
    age = parse_cache_control("max-age=" + "9" * 6000).max_age
    assert age is not None
    assert age > 1e9


@given(st.text())
def test_no_header_makes_reading_cache_control_fail(header: str) -> None:
    assert isinstance(parse_cache_control(header), CacheControl)
