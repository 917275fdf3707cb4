"""What sidecars say to each other about orders is sealed, and read with care."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sidecar.core.orders import Order, Result, State, Verb
from sidecar.core.other_shards import (
    on_this_shard,
    order_message,
    outcome_message,
    read_order_message,
    read_outcome_message,
)
from sidecar.core.sealed import Forged, Sealer

SEALER = Sealer(b"secret")
KICK = Order("o1", Verb.KICK, 1000.0, "standup", "standup@muc.example.org", "ann@example.org", reason="Ann is loud")
NOW_MS = 5_000_000


def message(order: Order = KICK) -> bytes:
    return order_message(order, NOW_MS - 3_000, 300_000, SEALER, "here")


def document(sealed: bytes) -> dict[str, Any]:
    return SEALER.hear(sealed)[0]


def test_an_order_arrives_as_it_was_said_with_its_age_on_the_clock_of_this_machine() -> None:
    order, left = read_order_message(document(message()), NOW_MS, 77_000.0)
    assert order == KICK.__class__(**{**{name: getattr(KICK, name) for name in KICK.__slots__}, "issued": 76_997.0})
    assert left == 297.0


def test_an_outcome_arrives_as_it_was_said() -> None:
    sealed = outcome_message("o1", Result(State.DONE, {"occupants": ["ann"]}), SEALER, "here")
    assert read_outcome_message(document(sealed)) == ("o1", Result(State.DONE, {"occupants": ["ann"]}))


def test_two_orders_about_one_user_have_nothing_in_common_without_the_key() -> None:
    first, second = message(), message(replace(KICK, id="o2"))
    assert not any(first[at : at + 6] in second for at in range(len(first) - 5))


def test_a_message_that_was_changed_is_forged() -> None:
    whole = message()
    for at in range(0, len(whole), 7):
        with pytest.raises(Forged):
            SEALER.hear(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


@pytest.mark.parametrize(
    "wrong",
    [
        {"verb": "explode"},
        {"id": 3},
        {"room": None},
        {"issued": "soon"},
        {"until": None},
        {"user": 1},
        {"nick": ["ann"]},
    ],
    ids=str,
)
def test_a_message_that_cannot_be_read_is_forged(wrong: dict[str, Any]) -> None:
    with pytest.raises(Forged):
        read_order_message({**document(message()), **wrong}, NOW_MS, 0.0)


@pytest.mark.parametrize("wrong", [{"state": "lost"}, {"id": ""}, {"fields": 1}], ids=str)
def test_an_outcome_that_cannot_be_read_is_forged(wrong: dict[str, Any]) -> None:
    outcome = document(outcome_message("o1", Result(State.DONE), SEALER, "here"))
    with pytest.raises(Forged):
        read_outcome_message({**outcome, **wrong})


def test_on_a_visitor_node_the_room_of_the_main_domain_is_the_one_of_that_name() -> None:
    domains = ("muc.example.org", "muc.v1.example.org")
    assert on_this_shard(KICK, ["muc.v1.example.org"], domains).room_jid is None
    assert on_this_shard(KICK, ["muc.example.org"], domains) == KICK
    assert on_this_shard(KICK, ["muc.other.example.org"], ()) == KICK
