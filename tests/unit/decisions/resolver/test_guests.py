"""Guests share an answer until the backend says that it is private."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.model import Outcome, Source
from sidecar.core.policy import OnUnavailable
from sidecar.core.selection import Selector
from tests.unit.builders import a_policy
from tests.unit.harness import (
    REFUSED,
    SIE,
    Harness,
    after,
    allow,
    deny,
    reason,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_guests_of_one_room_share_an_answer() -> None:
    harness = Harness(anonymous=frozenset({"guest.example.com"}))
    await harness.asks("x1@guest.example.com")
    assert (await harness.asks("x2@guest.example.com")).source is Source.HIT
    assert (await harness.asks("x3@example.com", guest=True)).source is Source.HIT
    assert len(harness.backend.calls) == 1


@in_virtual_time
async def test_guests_of_another_room_do_not() -> None:
    harness = Harness(anonymous=frozenset({"guest.example.com"}))
    await harness.asks("x1@guest.example.com")
    harness.backend.says(deny())
    assert (await harness.asks("x2@guest.example.com", "board")).allowed is False


@in_virtual_time
async def test_a_private_answer_is_for_one_guest_also_among_those_who_waited_for_it_together() -> None:
    harness = Harness()
    harness.backend.says(after(0.2, allow("private")), deny("Not you"), deny("Nor you"))
    answers = await asyncio.gather(*(harness.asks(f"x{n}@guest.example.com", guest=True) for n in range(3)))
    assert [answer.allowed for answer in answers] == [True, False, False]
    assert {reason(answer) for answer in answers[1:]} == {"Not you", "Nor you"}
    assert len(harness.backend.calls) == 3


@in_virtual_time
async def test_after_a_private_answer_each_guest_has_a_call_and_an_entry_of_its_own() -> None:
    harness = Harness()
    harness.backend.says(allow("private"), deny())
    await harness.asks("x1@guest.example.com", guest=True)
    assert (await harness.asks("x2@guest.example.com", guest=True)).allowed is False
    assert (await harness.asks("x2@guest.example.com", guest=True)).source is Source.HIT
    assert (await harness.asks("x9@guest.example.com", guest=True)).source is Source.BACKEND
    assert len(harness.backend.calls) == 3


@in_virtual_time
async def test_a_private_refresh_takes_the_shared_answer_away() -> None:
    harness = Harness()
    await harness.asks("x1@guest.example.com", guest=True)
    await harness.passes(16)
    harness.backend.says(allow("private"), deny())
    await harness.asks("x1@guest.example.com", guest=True)
    await settled()
    assert (await harness.asks("x2@guest.example.com", guest=True)).allowed is False


@in_virtual_time
async def test_an_older_private_allow_does_not_bring_back_a_guest_who_was_denied_since() -> None:
    harness = Harness()
    old = harness.backend.hold()
    first = harness.soon("x1@guest.example.com", guest=True)
    await settled()
    await harness.resolver.purge(Selector(subject="guest"))
    harness.backend.says(allow("private"), deny("Removed"))
    await harness.asks("x2@guest.example.com", guest=True)
    assert (await harness.asks("x1@guest.example.com", guest=True)).allowed is False
    old.comes(allow("private"))
    assert (await first).allowed is False
    assert (await harness.asks("x1@guest.example.com", guest=True)).allowed is False


@in_virtual_time
async def test_an_older_private_allow_does_not_let_in_a_guest_after_all_were_denied() -> None:
    harness = Harness()
    await harness.asks("alice@example.com")
    old = harness.backend.hold()
    first = harness.soon("x1@guest.example.com", guest=True)
    await settled()
    harness.backend.says(deny(), deny("Cancelled"))
    await harness.asks("mallory@example.com")  # the next question of a guest begins a call of its own
    assert (await harness.asks("x2@guest.example.com", guest=True)).allowed is False
    old.comes(allow("private"))
    assert (await first).allowed is False
    harness.backend.always(REFUSED)
    assert reason(await harness.asks("x1@guest.example.com", guest=True)) == "Cancelled"


@in_virtual_time
async def test_private_means_nothing_for_one_who_is_known() -> None:
    harness = Harness()
    harness.backend.says(allow("private"))
    await harness.asks("alice@example.com")
    assert (await harness.asks("alice@example.com")).source is Source.HIT


@in_virtual_time
async def test_guests_who_were_denied_together_are_denied_by_policy_after_one_of_them_was_let_in_alone() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    harness.backend.says(deny("Cancelled"))
    await harness.asks("x1@guest.example.com", guest=True)
    await harness.passes(31)
    harness.backend.says(allow("private"))
    assert (await harness.asks("x2@guest.example.com", guest=True)).allowed is True
    harness.backend.always(REFUSED)
    assert (await harness.asks("x1@guest.example.com", guest=True)).allowed is False
    assert (await harness.asks("x2@guest.example.com", guest=True)).allowed is True
    assert (await harness.asks("x1@guest.example.com", "retro", guest=True)).allowed is True
    harness.backend.always(allow("private"))
    await harness.passes(20)
    assert (await harness.asks("x1@guest.example.com", guest=True)).allowed is True
    harness.backend.always(REFUSED)
    await harness.passes(2 * SIE)
    assert (await harness.asks("x1@guest.example.com", guest=True)).allowed is True, "the last answer was an allow"


@in_virtual_time
@pytest.mark.parametrize("own", [deny(cache_control="private"), allow(requireLobby=True)], ids=["deny", "lobby"])
async def test_an_older_allow_for_all_is_no_answer_for_a_guest_who_has_one_of_its_own_since(own: Outcome) -> None:
    harness = Harness()
    old = harness.backend.hold()
    first = harness.soon("x1@guest.example.com", guest=True)
    await settled()
    harness.backend.says(deny(), own)
    await harness.asks("mallory@example.com")  # the next question of a guest begins a call of its own
    said = (await harness.asks("x1@guest.example.com", guest=True)).body
    old.comes(allow())
    assert (await first).body == said
    assert (await harness.asks("x1@guest.example.com", guest=True)).body == said
    assert len(harness.backend.calls) == 3


@in_virtual_time
async def test_a_later_allow_for_all_counts_for_a_guest_whose_older_answer_was_for_this_guest_alone() -> None:
    harness = Harness()
    old = harness.backend.hold()
    first = harness.soon("x1@guest.example.com", guest=True)
    await settled()
    harness.backend.says(deny(), allow())
    await harness.asks("mallory@example.com")  # the next question of a guest begins a call of its own
    await harness.asks("x1@guest.example.com", guest=True)
    old.comes(allow(isModerator=True))
    assert b"isModerator" not in (await first).body
    assert b"isModerator" not in (await harness.asks("x1@guest.example.com", guest=True)).body


@in_virtual_time
async def test_an_older_deny_for_all_counts_for_a_guest_who_has_an_own_answer_since() -> None:
    harness = Harness()
    old = harness.backend.hold()
    first = harness.soon("x1@guest.example.com", guest=True)
    await settled()
    harness.backend.says(deny(), allow(requireLobby=True))
    await harness.asks("mallory@example.com")  # the next question of a guest begins a call of its own
    await harness.asks("x1@guest.example.com", guest=True)
    old.comes(deny())
    assert (await first).allowed is False
    assert (await harness.asks("x1@guest.example.com", guest=True)).allowed is False
