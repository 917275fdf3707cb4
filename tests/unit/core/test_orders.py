"""What an order says, what an outcome means, and in which order orders are sent."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.model import Endpoint
from sidecar.core.orders import Order, State, Verb, Waiting, fingerprint, read_order, read_outcome, taken_away
from sidecar.core.selection import Change
from sidecar.core.wire import Malformed
from tests.unit.builders import a_config_key, a_key


def order(verb: Verb = Verb.KICK, order_id: str = "o-1", **fields: Any) -> Order:
    said = {"room": "standup", **({"user": "ann@example.org"} if verb is Verb.KICK else {}), **fields}
    said = {name: value for name, value in said.items() if value is not ...}
    return read_order(verb, json.dumps(said).encode(), order_id, 1_700_000_000.5)


def test_an_order_goes_to_the_module_with_what_it_says_and_when_it_came() -> None:
    assert order(reason="Enough").document() == {
        "verb": "kick",
        "room": "standup",
        "user": "ann@example.org",
        "reason": "Enough",
        "issued": 1_700_000_000.5,
    }


def test_a_room_can_be_named_by_its_jid_and_is_in_lower_case() -> None:
    it = order(Verb.END, room="Standup@Conference.Example.org")
    assert (it.room, it.room_jid, it.host) == ("standup", "standup@conference.example.org", "conference.example.org")


@pytest.mark.parametrize(
    ("verb", "fields", "field"),
    [
        (Verb.KICK, {"room": ...}, "room"),
        (Verb.KICK, {"room": 7}, "room"),
        (Verb.KICK, {"room": " "}, "room"),
        (Verb.KICK, {"room": "a@b@c"}, "room"),
        (Verb.KICK, {"room": "@b"}, "room"),
        (Verb.KICK, {"room": "x" * 1024}, "room"),
        (Verb.KICK, {"room": "\ud800"}, "room"),
        (Verb.KICK, {"user": ...}, "user"),
        (Verb.KICK, {"nick": "Ann"}, "user"),
        (Verb.KICK, {"user": "guest"}, "user"),
        (Verb.KICK, {"reason": ["a"]}, "reason"),
        (Verb.KICK, {"command": "rm"}, "command"),
        (Verb.END, {"user": "ann"}, "user"),
        (Verb.FORGET, {"room": ...}, "room"),
        (Verb.FORGET, {"mode": "all"}, "mode"),
        (Verb.FORGET, {"mode": ["drop"]}, "mode"),
    ],
)
def test_what_cannot_be_understood_names_the_field(verb: Verb, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Malformed) as caught:
        order(verb, **fields)
    assert caught.value.field == field


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["room", "user", "nick", "mode", "meetingId", "status", "error", "kicked", "users"]),
                inner,
            )
        ),
    )
)
def test_any_json_is_an_order_or_malformed_and_any_outcome_means_something(document: Any) -> None:
    for verb in Verb:
        with contextlib.suppress(Malformed):
            read_order(verb, json.dumps(document).encode(), "o", 1.0)
        assert read_outcome(verb, document).state in (State.DONE, State.ABSENT, State.FAILED)


def test_an_outcome_tells_the_sender_what_the_contract_names_and_nothing_else() -> None:
    done = read_outcome(Verb.KICK, {"status": "done", "kicked": 2, "internal": 1, "users": ["ann@example.org", 7]})
    assert (done.state, done.fields, done.users) == (State.DONE, {"kicked": 2}, ("ann@example.org",))
    assert read_outcome(Verb.END, {"status": "done"}).fields == {"ended": True}
    assert read_outcome(Verb.END, {"status": "failed", "error": "no"}).error == "no"


def test_orders_that_say_the_same_are_known_as_the_same() -> None:
    assert fingerprint(order(order_id="a")) == fingerprint(order(order_id="b"))
    assert fingerprint(order()) != fingerprint(order(reason="x"))


ANN, BOB = a_key(subject="jid ann@example.org"), a_key(subject="jid bob@example.org")
GUESTS, TOKEN = a_key(subject="guest"), a_key(subject="token")


def effect(it: Order) -> dict[str, set[Change]]:
    keys = {"ann": ANN, "bob": BOB, "guests": GUESTS, "token": TOKEN, "config": a_config_key(), "other": a_key("other")}
    return {
        name: {change for selector, change in taken_away(it) if selector.fits(key)}
        for name, key in keys.items()
        if any(selector.fits(key) for selector, _ in taken_away(it))
    }


def test_a_kick_takes_the_allow_of_the_user_away_and_makes_shared_answers_suspect() -> None:
    suspect, revoked = {Change.SUSPECT}, {Change.REVOKE}
    assert effect(order()) == {"ann": revoked, "guests": suspect, "token": suspect}
    assert effect(order(user=..., nick="Ann")) == dict.fromkeys(("ann", "bob", "guests", "token"), suspect)


def test_an_end_takes_all_allows_of_the_room_away() -> None:
    found = effect(order(Verb.END))
    assert set(found) == {"ann", "bob", "guests", "token", "config"}
    assert all(Change.REVOKE in found[name] for name in found if name != "config")
    assert found["config"] == {Change.SUSPECT}


def test_a_refresh_is_about_the_config_alone() -> None:
    assert effect(order(Verb.REFRESH)) == {"config": {Change.SUSPECT}}


def test_a_forget_drops_only_if_it_says_so() -> None:
    assert effect(order(Verb.FORGET, user="ann@example.org")) == {"ann": {Change.SUSPECT}}
    assert effect(order(Verb.FORGET, mode="drop"))["config"] == {Change.DROP}
    everywhere = order(Verb.FORGET, room=..., user="ann@example.org")
    assert {selector.fits(a_key("any", "jid ann@example.org")) for selector, _ in taken_away(everywhere)} == {True}


def test_a_room_named_by_its_jid_means_no_room_of_another_domain() -> None:
    it = order(Verb.END, room="standup@conference.a.example")
    there = ANN._replace(room_jid='"standup@conference.a.example"')
    elsewhere = ANN._replace(room_jid='"standup@conference.b.example"')
    assert [any(s.fits(key) for s, _ in taken_away(it)) for key in (there, elsewhere, ANN._replace(room_jid=None))] == [
        True,
        False,
        True,
    ]


def test_a_meeting_can_be_forgotten_by_its_id() -> None:
    ((selector, _),) = taken_away(order(Verb.FORGET, room=..., meetingId=7))
    assert selector.fits(ANN._replace(meeting_id="7"))
    assert not selector.fits(ANN._replace(meeting_id='"7"'))
    assert selector.endpoint is None or selector.endpoint is Endpoint.VALIDATE_ACCESS


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), max_size=40))
def test_within_a_room_orders_are_sent_one_after_the_other_in_the_order_in_which_they_came(steps: Any) -> None:
    waiting, sent, came = Waiting(), [], []
    for number, (room, ends) in enumerate(steps):
        it = order(Verb.END, f"o-{number}", room=room)
        came.append(it)
        if waiting.add(it, 10.0):
            sent.append(it)
        for first in list(waiting.first())[:ends]:
            assert first in sent
            following = waiting.end(first.id)
            if following is not None:
                sent.append(following)
    for room in "abc":
        in_room = [it for it in sent if it.room == room]
        assert in_room == [it for it in came if it.room == room][: len(in_room)]
    assert len(waiting) == len(came) - sum(it.id not in waiting for it in came)


def test_a_room_is_absent_when_no_connected_module_can_have_it() -> None:
    waiting = Waiting()
    waiting.add(order(Verb.END), 10.0)
    assert not waiting.absent("o-1", "a.example", {"a.example", "b.example"})
    assert waiting.absent("o-1", "b.example", {"a.example", "b.example"})


def test_a_room_that_is_named_by_its_jid_is_absent_only_by_the_word_of_its_own_module() -> None:
    waiting = Waiting()
    waiting.add(order(Verb.END, room="standup@a.example"), 10.0)
    assert not waiting.absent("o-1", "b.example", {"b.example"})
    assert waiting.absent("o-1", "a.example", {"a.example", "b.example"})


def test_orders_expire_at_their_time() -> None:
    waiting = Waiting()
    waiting.add(order(order_id="a"), 10.0)
    waiting.add(order(order_id="b"), 20.0)
    assert [it.id for it in waiting.expired(10.0)] == ["a"]
