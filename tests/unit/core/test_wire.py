"""What Prosody sends: what is understood, what is refused and why, and which questions are the same question."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.core.model import NOBODY, Asker, Endpoint, Key
from sidecar.core.wire import (
    NAME_LIMIT,
    Malformed,
    Message,
    _decode_strictly,
    _document,
    config_query_of,
    query_of,
    read_message,
    traceparent_of,
)

DECISION, CONFIG, EVENT = Endpoint.VALIDATE_ACCESS, Endpoint.ROOM_CREATED, Endpoint.USER_JOINED
GUESTS = frozenset({"guest.example.com"})


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def key_of(endpoint: Endpoint = DECISION, **fields: Any) -> Key:
    whole = {"roomName": "standup", "userJid": "alice@example.com/phone", **fields}
    sent = {name: value for name, value in whole.items() if value is not ...}
    return query_of(endpoint, read_message(endpoint, body(**sent)), 0.0, "", GUESTS).key


def complaint(endpoint: Endpoint, raw: bytes) -> tuple[str | None, str]:
    with pytest.raises(Malformed) as caught:
        read_message(endpoint, raw)
    return caught.value.field, str(caught.value)


# --- what cannot be understood -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "field", "says"),
    [
        (b"", None, "not JSON"),
        (b"{", None, "not JSON"),
        (b"hello", None, "not JSON"),
        (b'{"roomName":"a"} trailing', None, "not JSON"),
        (b"{'roomName':'a'}", None, "not JSON"),
        (b"\xff\xfe{}", None, "not UTF-8"),
        (b"\xef\xbb\xbf{}", None, "JSON"),
        (b'{"roomName":"\xed\xa0\x80"}', None, "not UTF-8"),
        (b"null", None, "must be a JSON object, not null"),
        (b"[]", None, "must be a JSON object, not an array"),
        (b'"text"', None, "must be a JSON object, not a string"),
        (b"7", None, "must be a JSON object, not a number"),
        (b"true", None, "must be a JSON object, not a boolean"),
        (b"NaN", None, "not usable JSON"),
        (b'{"roomName":"a","userJid":"b","meetingId":NaN}', None, "NaN"),
        (b'{"roomName":"a","userJid":"b","meetingId":-Infinity}', None, "-Infinity"),
        (b"[" * 60_000, None, "not usable JSON"),
        (b'{"roomName":' + b"9" * 5000 + b"}", None, "not usable JSON"),
        (b'{"roomName":"a","roomName":"b","userJid":"c"}', None, "'roomName' is there twice"),
        (b'{"roomName":"a","userJid":"b","userJid":"c"}', None, "'userJid' is there twice"),
        (b'{"roomName":"a","userJid":"b","meetingId":{"x":1,"x":2}}', None, "'x' is there twice"),
        (b"{}", "roomName", "roomName is missing"),
        (body(roomName=None), "roomName", "must be a string, not null"),
        (body(roomName=7), "roomName", "must be a string, not a number"),
        (body(roomName=True), "roomName", "must be a string, not a boolean"),
        (body(roomName=["a"]), "roomName", "must be a string, not an array"),
        (body(roomName={}), "roomName", "must be a string, not an object"),
        (body(roomName=""), "roomName", "must not be empty"),
        (body(roomName="r" * 1024), "roomName", "1024 bytes long; at most 1023"),
        (body(roomName="é" * 512), "roomName", "1024 bytes long"),
        (b'{"roomName":"\\ud800"}', "roomName", "half a surrogate pair"),
        (body(roomName="a"), "userJid", "userJid is missing"),
        (body(roomName="a", userJid=None), "userJid", "must be a string"),
        (body(roomName="a", userJid=""), "userJid", "must not be empty"),
        (body(roomName="a", userJid="u" * 1024), "userJid", "at most 1023"),
        (body(roomName="a", userJid=["x"]), "userJid", "not an array"),
    ],
)
def test_what_cannot_be_understood_says_which_field_and_why(raw: bytes, field: str | None, says: str) -> None:
    found, text = complaint(DECISION, raw)
    assert found == field
    assert says in text
    assert "\n" not in text
    assert len(text) < 300


@pytest.mark.parametrize("endpoint", [CONFIG, EVENT])
def test_only_a_decision_needs_a_user(endpoint: Endpoint) -> None:
    assert read_message(endpoint, body(roomName="a")).room == "a"


def test_a_name_of_exactly_the_limit_is_understood() -> None:
    message = read_message(DECISION, body(roomName="é" * 511 + "x", userJid="u" * NAME_LIMIT))
    assert len(message.room.encode()) == NAME_LIMIT


def test_a_body_is_kept_byte_for_byte() -> None:
    raw = '{ "roomName" : "a",\t"x":1.50, "y":"\\u00e9é" }\n'.encode()
    assert read_message(CONFIG, raw).body is raw


@pytest.mark.parametrize("depth", range(880, 1010))
def test_a_body_nested_deeply_is_either_a_question_or_malformed(depth: int) -> None:
    raw = b'{"roomName":"a","userJid":"b","meetingId":' + b"[" * depth + b"]" * depth + b"}"
    with contextlib.suppress(Malformed):
        query_of(DECISION, read_message(DECISION, raw), 0.0, "", GUESTS)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(raw: bytes) -> None:
    for endpoint in (DECISION, CONFIG, EVENT):
        try:
            message = read_message(endpoint, raw)
        except Malformed:
            continue
        assert message.room


# --- which questions are the same --------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"timestamp": 2}, {"event": "x"}, {"userName": "Al"}, {"meetingId": None}])
def test_what_changes_by_itself_is_no_part_of_the_key(change: dict[str, Any]) -> None:
    assert key_of(timestamp=1, userName="Alice", event="join") == key_of(**change)


def test_two_devices_of_one_user_ask_the_same() -> None:
    assert key_of(userJid="alice@example.com/phone") == key_of(userJid="alice@example.com/laptop")


@pytest.mark.parametrize(
    "change",
    [
        {"roomName": "board"},
        {"roomName": "[tenant]standup"},
        {"roomJid": "standup@conference.example.com"},
        {"meetingId": 1},
        {"meetingId": "1"},
        {"meetingId": 0},
        {"meetingId": False},
        {"meetingId": ""},
        {"meetingId": [1]},
        {"userJid": "bob@example.com"},
        {"userId": "alice"},
        {"userId": 0},
        {"userEmail": "alice@example.com"},
        {"bearerToken": "t"},
        {"bearerToken": 0},
        {"guest": True},
    ],
)
def test_each_of_these_makes_it_another_question(change: dict[str, Any]) -> None:
    assert key_of(**change) != key_of()


def test_the_type_of_a_meeting_id_counts() -> None:
    assert len({key_of(meetingId=value) for value in (1, "1", 1.5, "1.5", True, "true", [1], ["1"], {"a": 1})}) == 9


def test_a_users_id_counts_for_more_than_the_jid() -> None:
    assert key_of(userId="u7", userJid="x1@guest.example.com") == key_of(userId="u7", userJid="x2@example.com")


@pytest.mark.parametrize("known", [{"userEmail": "ann@example.com"}, {"bearerToken": "t"}])
def test_without_an_id_the_email_or_the_token_counts_for_more_than_the_jid(known: dict[str, Any]) -> None:
    first, second = (key_of(DECISION, **known, userJid=f"{jid}@meet.example.com") for jid in ("x1", "x2"))
    assert first == second != key_of()


def test_people_with_different_tokens_are_different_people() -> None:
    assert key_of(bearerToken="t1") != key_of(bearerToken="t2")
    assert key_of(bearerToken="t1", userEmail="e") != key_of(bearerToken="t2", userEmail="e")
    assert key_of(bearerToken="t", userEmail="e1") != key_of(bearerToken="t", userEmail="e2")


def test_one_kind_of_name_is_never_taken_for_another() -> None:
    names: list[dict[str, Any]] = [{"userJid": "ann"}, {"userId": "ann"}, {"userEmail": "ann"}, {"bearerToken": "ann"}]
    assert len({key_of(**name) for name in names}) == 4
    assert key_of(userId='u" "e') != key_of(userId="u", userEmail="e")
    assert key_of(userJid='email "a"') != key_of(userEmail="a")
    assert key_of(userJid="token") != key_of(bearerToken="t")._replace(token=None)


@pytest.mark.parametrize(
    "ids",
    [
        (1234567890123456789, 1234567890123456788),
        (2**53, 2**53 + 1),
        (10**400, 10**400 + 1),
        ("1234567890123401", 1234567890123401),
    ],
)
@pytest.mark.parametrize("field", ["userId", "meetingId"])
def test_ids_are_exact(field: str, ids: tuple[Any, Any]) -> None:
    first, second = (key_of(DECISION, **{field: each}) for each in ids)
    assert first != second


@pytest.mark.parametrize("numbers", [("9007199254740992.0", "9007199254740993.0"), ("1e400", "1e500"), ("1.0", "1")])
def test_numbers_that_are_one_float_are_two_ids(numbers: tuple[str, str]) -> None:
    bodies = [b'{"roomName":"a","userJid":"b","userId":%b}' % number.encode() for number in numbers]
    first, second = (query_of(DECISION, read_message(DECISION, body), 0.0, "", GUESTS).key for body in bodies)
    assert first != second


def test_nobody_can_call_himself_the_guest() -> None:
    guest = key_of(guest=True)
    names: list[dict[str, Any]] = [
        {"userJid": "guest"},
        {"userId": "guest"},
        {"userEmail": "guest"},
        {"userJid": "guest/x"},
    ]
    for who in names:
        assert key_of(**who) != guest


@pytest.mark.parametrize(
    "who", [{"guest": True}, {"userJid": "x@guest.example.com/r"}, {"userJid": "x@GUEST.example.COM"}]
)
def test_guests_of_a_room_are_one_subject(who: dict[str, Any]) -> None:
    assert key_of(**who).subject == "guest"


@pytest.mark.parametrize(
    "who",
    [
        {"guest": "true"},
        {"guest": 1},
        {"guest": False},
        {"userJid": "x@sub.guest.example.com"},
        {"userJid": "guest.example.com@example.com"},
        {"guest": True, "bearerToken": "t"},
        {"guest": True, "userId": "u"},
        {"guest": True, "userId": 0},
        {"guest": True, "userEmail": "e@example.com"},
        {"userJid": "x@guest.example.com", "bearerToken": "t"},
    ],
)
def test_these_are_no_guests(who: dict[str, Any]) -> None:
    assert key_of(**who).subject != "guest"


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_field_that_says_nothing_is_as_if_it_were_not_sent(nothing: object) -> None:
    assert key_of(userId=nothing, userEmail=nothing, bearerToken=nothing) == key_of()


def test_no_token_is_kept() -> None:
    assert "s3cret" not in repr(key_of(bearerToken="s3cret"))
    assert "s3cret" not in repr(
        query_of(
            DECISION, read_message(DECISION, body(roomName="a", userJid="b", bearerToken="s3cret")), 0.0, "", GUESTS
        )
    )


@pytest.mark.parametrize(
    ("creator", "asker"),
    [
        ("alice@example.com/phone", Asker("alice@example.com")),
        ("x1@Guest.example.com/phone", Asker("x1@Guest.example.com", guest=True)),
        (..., NOBODY),
        (7, NOBODY),
    ],
)
def test_who_creates_the_room_asks_for_its_config(creator: object, asker: Asker) -> None:
    fields = {"roomName": "standup"} | ({} if creator is ... else {"creator": creator})
    assert query_of(CONFIG, read_message(CONFIG, body(**fields)), 0.0, "", GUESTS).asker == asker


def test_a_config_is_the_same_question_whoever_creates_the_room() -> None:
    assert key_of(CONFIG, creator="alice") == key_of(CONFIG, creator="bob", userId="x")
    assert key_of(CONFIG, roomJid="a@x") != key_of(CONFIG, roomJid="a@y")


SMALL = st.sampled_from(["a", "b", "a b", '"', '"a"', "a\\", "1", "guest", "jid a", "é", "a@b", "null", "a\n"])
VALUES = st.none() | SMALL | st.integers(0, 2) | st.booleans() | st.lists(SMALL | st.integers(0, 1), max_size=2)
PERSON = (
    SMALL | SMALL.map(lambda text: f"{text}@guest.example.com") | st.tuples(SMALL, SMALL).map("{0[0]}/{0[1]}".format)
)
QUESTIONS = st.fixed_dictionaries(
    {"roomName": SMALL, "userJid": PERSON},
    optional={
        "roomJid": VALUES,
        "meetingId": VALUES,
        "userId": VALUES,
        "userEmail": VALUES,
        "bearerToken": VALUES,
        "guest": st.booleans(),
    },
)


def inputs_of_the_answer(question: dict[str, Any]) -> str:
    """The words of contract §4, written a second time and for reading only: what an answer may depend on."""

    def sent(name: str) -> bool:
        return question.get(name) is not None and question[name] is not False and question[name] != ""

    bare = question["userJid"].split("/")[0]
    is_named = sent("userId") or sent("userEmail") or sent("bearerToken")
    guest = not is_named and (question.get("guest") is True or bare.split("@")[-1] in GUESTS)
    subject: list[Any]
    if sent("userId"):
        subject = ["by id", question["userId"]]
    elif sent("userEmail") or sent("bearerToken"):
        subject = ["by e-mail or token"]
    elif guest:
        subject = ["a guest"]
    else:
        subject = ["by jid", bare]
    if sent("userEmail"):
        subject.append(question["userEmail"])
    return json.dumps(
        [
            question["roomName"],
            [name in question and question[name] is not None and question[name] for name in ("roomJid", "meetingId")],
            [name for name in ("roomJid", "meetingId") if question.get(name) is not None],
            subject,
            question["bearerToken"] if sent("bearerToken") else None,
        ]
    )


@settings(max_examples=400)
@given(st.lists(QUESTIONS, min_size=2, max_size=8))
def test_two_different_questions_never_share_a_key_and_the_same_one_always_does(
    questions: list[dict[str, Any]],
) -> None:
    keys = [key_of(DECISION, **question) for question in questions]
    inputs = [inputs_of_the_answer(question) for question in questions]
    for first in range(len(questions)):
        for second in range(first):
            assert (keys[first] == keys[second]) is (inputs[first] == inputs[second])


@settings(max_examples=300)
@given(QUESTIONS, st.sampled_from(["userEmail", "userId", "bearerToken", "meetingId", "roomJid", "roomName"]), SMALL)
def test_a_change_of_one_field_is_a_change_of_the_key(question: dict[str, Any], field: str, value: str) -> None:
    other = {**question, field: value}
    same = inputs_of_the_answer(question) == inputs_of_the_answer(other)
    assert (key_of(DECISION, **question) == key_of(DECISION, **other)) is same


# --- traces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01", True),
        ("00-" + "A" * 32 + "-" + "b" * 16 + "-01", False),
        ("ff-" + "a" * 32 + "-" + "b" * 16 + "-01", False),
        ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", False),
        ("00-" + "a" * 32 + "-" + "0" * 16 + "-01", False),
        ("00-" + "a" * 32 + "-" + "b" * 16 + "-01\n", False),
        ("hello", False),
        ("", False),
    ],
)
def test_only_a_valid_trace_is_passed_on(header: str, good: bool) -> None:
    assert traceparent_of(header) == (header if good else "")


# --- read quickly, and as strictly -------------------------------------------------------------------------------


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
members = st.lists(st.tuples(st.text(max_size=4), scalars | st.lists(scalars, max_size=2)), max_size=6)


@given(members, st.booleans())
def test_a_body_is_read_the_same_with_and_without_the_short_way(fields: list[tuple[str, Any]], ascii: bool) -> None:
    fields = [("roomName", "a"), *fields]
    raw = "{" + ",".join(f"{json.dumps(n, ensure_ascii=ascii)}:{json.dumps(v)}" for n, v in fields) + "}"
    try:
        strict = _decode_strictly(raw)
    except ValueError:
        with pytest.raises(Malformed):
            read_message(EVENT, raw.encode())
    else:
        assert _document(raw) == strict


@pytest.mark.parametrize("value", ['"b"', "1", "null", "true", '""'])
@pytest.mark.parametrize("name", ["roomName", "userJid"])
def test_no_field_may_be_there_twice_whatever_it_holds(name: str, value: str) -> None:
    for pair in (f'"{name}":"a","{name}":{value}', f'"{name}":{value},"{name}":"a"'):
        with pytest.raises(Malformed, match="there twice"):
            read_message(EVENT, f'{{"roomName":"a",{pair}}}'.encode())


# --- what a join asks about its room ----------------------------------------------------------------------------


def test_the_question_about_the_room_is_in_the_words_of_room_created_and_without_the_token() -> None:
    fields = {"roomName": "a", "roomJid": "a@muc.example.org", "userJid": "ann@example.org/desk", "timestamp": 7}
    message = read_message(DECISION, body(**fields, bearerToken="a-token", userName="Ann"))
    decision = query_of(DECISION, message, 1.5, "trace", GUESTS)
    query = config_query_of(message, decision)
    assert query.key == query_of(CONFIG, read_message(CONFIG, body(**fields)), 0.0, "", GUESTS).key
    assert (query.received_at, query.traceparent, query.caller) == (1.5, "trace", "")
    assert json.loads(query.body) == {
        "roomName": "a",
        "roomJid": "a@muc.example.org",
        "timestamp": 7,
        "creator": "ann@example.org",
    }


def test_what_can_be_read_but_not_written_is_malformed() -> None:
    document = {"roomName": "a", "userJid": "b@example.org", "meetingId": json.loads("[" * 400 + "]" * 400)}
    for _ in range(100_000):
        document["meetingId"] = [document["meetingId"]]
    with pytest.raises(Malformed, match="nested too deeply"):
        query_of(DECISION, Message("a", document, b""), 0.0, "", GUESTS)
