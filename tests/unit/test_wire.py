"""What Prosody sends: which questions share a key, which do not, and what is malformed."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.model import GUEST, Endpoint, Key, Query
from sidecar.core.wire import NAME_LIMIT, Malformed, query_of, read_message, traceparent_of

ANN = "ann@example.org"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def a_query(endpoint: Endpoint = Endpoint.VALIDATE_ACCESS, *, anonymous: str = "", **fields: object) -> Query:
    """The question of somebody who wants into the standup, with these fields on top."""
    body = {"roomName": "standup", "userJid": f"{ANN}/desk", "userName": "Ann", "timestamp": 1} | fields
    message = read_message(endpoint, json.dumps(body).encode())
    return query_of(endpoint, message, 12.5, TRACE, frozenset(filter(None, [anonymous])))


def a_key(**fields: object) -> Key:
    """The key of such a question."""
    return a_query(**fields).key  # type: ignore[arg-type]


def complaint(body: bytes, endpoint: Endpoint = Endpoint.VALIDATE_ACCESS) -> tuple[str, str | None]:
    """What is wrong with a body, and in which field."""
    with pytest.raises(Malformed) as caught:
        read_message(endpoint, body)
    return str(caught.value), caught.value.field


# ---- keys


def test_a_question_goes_to_the_backend_byte_for_byte() -> None:
    body = b' {"userJid":"ann@example.org/desk", "roomName":"standup","x":1e3} '
    query = query_of(Endpoint.VALIDATE_ACCESS, read_message(Endpoint.VALIDATE_ACCESS, body), 12.5, TRACE, frozenset())
    assert query == Query(
        Key(Endpoint.VALIDATE_ACCESS, "standup", subject=f"jid {ANN}"), body, 12.5, caller=ANN, traceparent=TRACE
    )


def test_a_room_config_is_keyed_by_its_room_alone() -> None:
    assert a_query(Endpoint.ROOM_CREATED, roomJid="standup@rooms", meetingId=1, userId=2, creator="x").key == Key(
        Endpoint.ROOM_CREATED, "standup", '"standup@rooms"'
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp": 2},
        {"event": "x"},
        {"userName": "Annie"},
        {"userJid": f"{ANN}/phone"},
        {"userJid": ANN},
        {"bearerToken": None},
        {"bearerToken": ""},
        {"userId": None},
        {"userId": ""},
        {"userEmail": ""},
        {"meetingId": None},
        {"roomJid": None},
        {"guest": False},
        {"guest": 1},
        {"guest": "true"},
    ],
)
def test_what_changes_by_itself_or_says_nothing_is_no_part_of_the_key(fields: Mapping[str, object]) -> None:
    assert a_key(**fields) == a_key()


QUESTIONS: list[Mapping[str, object]] = [
    {},
    {"roomName": "Standup"},
    {"roomJid": "standup@rooms"},
    {"roomJid": "standup@other"},
    {"meetingId": 1},
    {"meetingId": "1"},
    {"meetingId": 1.0},
    {"meetingId": True},
    {"meetingId": "true"},
    {"meetingId": 0},
    {"meetingId": ""},
    {"meetingId": [1]},
    {"userJid": "bob@example.org"},
    {"userId": 0},
    {"userId": 7},
    {"userId": "7"},
    {"userId": False},
    {"userId": "ann"},
    {"userId": "ann", "userEmail": "a@mail.example"},
    {"userId": 'ann" "a@mail.example'},
    {"userEmail": "a@mail.example"},
    {"userEmail": "b@mail.example"},
    {"bearerToken": "t1"},
    {"bearerToken": "t2"},
    {"bearerToken": 0},
    {"bearerToken": "0"},
    {"guest": True},
    {"guest": True, "userId": "bob"},
    {"guest": True, "userId": 0, "meetingId": 2},
    {"guest": True, "meetingId": 2},
]


def test_no_two_of_these_questions_share_a_key() -> None:
    keys: dict[Key, Mapping[str, object]] = {}
    for fields in QUESTIONS:
        key = a_key(**fields)
        assert key not in keys, f"{fields} is taken for {keys[key]}"
        keys[key] = fields


def test_an_object_as_meeting_id_is_the_same_in_any_order() -> None:
    assert a_key(meetingId={"a": 1, "b": 2}) == a_key(meetingId={"b": 2, "a": 1})


def test_a_token_is_kept_as_a_digest_only() -> None:
    key = a_key(bearerToken="secret-token")
    assert key.token is not None
    assert len(key.token) == 64
    assert "secret-token" not in repr(key)


@pytest.mark.parametrize("jid", ["x7@guests.example.org/a", "y8@guests.example.org/b"])
def test_the_guests_of_a_room_are_one_subject(jid: str) -> None:
    assert a_key(userJid=jid, guest=True).subject == GUEST
    assert a_key(userJid=jid, anonymous="guests.example.org").subject == GUEST
    assert a_key(userJid=jid.upper(), anonymous="guests.example.org").subject == GUEST
    assert a_key(userJid=jid, anonymous="example.org").subject == f"jid {jid.partition('/')[0]}"


@pytest.mark.parametrize("proof", [{"userId": "u"}, {"userId": 0}, {"userEmail": "e"}, {"bearerToken": "t"}])
def test_who_shows_anything_is_no_guest(proof: Mapping[str, object]) -> None:
    assert a_key(guest=True, **proof).subject != GUEST
    assert a_key(anonymous="example.org", **proof).subject != GUEST


def test_a_guest_who_is_asked_about_alone_is_known_by_jid() -> None:
    query = a_query(guest=True)
    assert query.alone() == Query(
        query.key._replace(subject=f"jid {ANN}"), query.body, query.received_at, ANN, query.traceparent
    )


IDENTITY = st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3) | st.floats(-3, 3)


@given(*[st.fixed_dictionaries({}, optional=dict.fromkeys(["userId", "meetingId", "bearerToken"], IDENTITY))] * 2)
def test_two_questions_share_a_key_only_if_they_say_the_same(
    one: Mapping[str, object], other: Mapping[str, object]
) -> None:
    def said(fields: Mapping[str, object]) -> dict[str, str]:
        nothing: dict[str, tuple[object, ...]] = {"meetingId": (None,)}
        return {
            name: json.dumps(value)
            for name, value in fields.items()
            if not any(value is silent or value == silent == "" for silent in nothing.get(name, (None, "")))
        }

    assert (a_key(**one) == a_key(**other)) is (said(one) == said(other))


# ---- malformed bodies


@pytest.mark.parametrize(
    ("body", "words", "field"),
    [
        (b"\xff", "the body is not UTF-8 (byte 0)", None),
        (b"", "the body is not JSON: Expecting value (line 1 column 1)", None),
        (b"{", "the body is not JSON", None),
        (b'{"a":NaN}', "the body is not usable JSON: NaN is not a JSON value", None),
        (b'{"a":' + b"9" * 5000 + b"}", "the body is not usable JSON", None),
        (b"[" * 30_000, "the body is not usable JSON", None),
        (b"null", "the body must be a JSON object, not null", None),
        (b"true", "the body must be a JSON object, not a boolean", None),
        (b"1", "the body must be a JSON object, not a number", None),
        (b"1.5", "the body must be a JSON object, not a number", None),
        (b'"x"', "the body must be a JSON object, not a string", None),
        (b"[]", "the body must be a JSON object, not an array", None),
        (b"{}", "roomName is missing", "roomName"),
        (b'{"roomName":null}', "roomName must be a string, not null", "roomName"),
        (b'{"roomName":{}}', "roomName must be a string, not an object", "roomName"),
        (b'{"roomName":""}', "roomName must not be empty", "roomName"),
        (b'{"roomName":"\\ud800"}', "roomName holds half a surrogate pair", "roomName"),
        (b'{"roomName":"x"}', "userJid is missing", "userJid"),
        (b'{"roomName":"x","userJid":7}', "userJid must be a string, not a number", "userJid"),
        (b'{"roomName":"x","userJid":""}', "userJid must not be empty", "userJid"),
    ],
)
def test_a_malformed_body_is_told_apart_with_field_and_reason(body: bytes, words: str, field: str | None) -> None:
    said, where = complaint(body)
    assert said.startswith(words)
    assert where == field


def test_a_name_may_be_as_long_as_a_part_of_a_jid_counted_in_bytes() -> None:
    assert a_key(roomName="ö" * (NAME_LIMIT // 2)).room == "ö" * 511
    said, field = complaint(json.dumps({"roomName": "ö" * 512}).encode())
    assert (said, field) == ("roomName is 1024 bytes long; at most 1023 are allowed", "roomName")


def test_a_jid_may_have_three_such_parts() -> None:
    assert a_query(userJid="a" * 1023 + "@" + "b" * 1023 + "/" + "c" * 1023).caller.endswith("b")
    assert complaint(json.dumps({"roomName": "x", "userJid": "a" * 3072}).encode())[1] == "userJid"


@pytest.mark.parametrize("endpoint", [Endpoint.ROOM_CREATED, Endpoint.USER_LEFT])
def test_only_a_decision_needs_a_jid(endpoint: Endpoint) -> None:
    assert read_message(endpoint, b'{"roomName":"x"}').room == "x"


@given(st.binary(max_size=40))
def test_no_body_makes_reading_fail_in_another_way(body: bytes) -> None:
    try:
        message = read_message(Endpoint.VALIDATE_ACCESS, body)
    except Malformed:
        return
    assert json.loads(body)["roomName"] == message.room


# ---- traceparent


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x" + TRACE,
        TRACE + "\n",
        TRACE.upper(),
        "ff" + TRACE[2:],
        "00-" + "0" * 32 + TRACE[35:],
        TRACE[:36] + "0" * 16 + "-01",
    ],
)
def test_a_traceparent_that_is_none_is_not_passed_on(header: str) -> None:
    assert traceparent_of(header) == ""


def test_a_valid_traceparent_is_passed_on() -> None:
    assert traceparent_of(TRACE) == TRACE
