"""What an operator or an order has taken away does not come back."""

from __future__ import annotations

from dataclasses import replace

from sidecar.core.breaker import Permit
from sidecar.core.model import Source
from sidecar.core.policy import OnUnavailable
from sidecar.core.selection import Change, Selector
from tests.unit.builders import a_policy
from tests.unit.harness import (
    CONFIG,
    DECISION,
    REFUSED,
    Harness,
    after,
    allow,
    deny,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_after_a_purge_the_next_question_asks_the_backend() -> None:
    harness = Harness()
    await harness.asks()
    await harness.asks("bob@example.com", "board")
    assert await harness.resolver.purge(Selector(room="standup")) == 1
    harness.backend.says(deny())
    assert (await harness.asks()).allowed is False
    assert (await harness.asks("bob@example.com", "board")).source is Source.HIT


@in_virtual_time
async def test_a_question_that_was_under_way_when_its_room_was_purged_is_asked_again() -> None:
    harness = Harness()
    harness.backend.says(after(1, allow()), deny("Cancelled"))
    waiting = harness.soon()
    await settled()
    await harness.resolver.purge(Selector(room="standup"))
    answer = await waiting
    assert (answer.allowed, answer.source) == (False, Source.BACKEND)
    assert len(harness.backend.calls) == 2


@in_virtual_time
async def test_a_user_who_is_revoked_while_the_question_is_under_way_is_asked_about_again() -> None:
    harness = Harness()
    harness.backend.says(after(1, allow()), REFUSED)
    waiting = harness.soon()
    await settled()
    await harness.resolver.purge(Selector("standup", "alice@example.com"), Change.REVOKE)
    harness.backend.always(REFUSED)
    assert (await waiting).allowed is False
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_who_is_revoked_is_not_let_in_while_the_backend_is_away_not_even_by_policy() -> None:
    harness = Harness(decision=replace(a_policy(), on_unavailable=OnUnavailable.ALLOW))
    await harness.asks()
    await harness.asks("bob@example.com")
    assert await harness.resolver.purge(Selector("standup", "alice@example.com"), Change.REVOKE) == 1
    harness.backend.always(REFUSED)
    await harness.passes(20)
    assert (await harness.asks()).allowed is False
    assert (await harness.asks("bob@example.com")).allowed is True
    assert (await harness.asks("stranger@example.com")).allowed is True


@in_virtual_time
async def test_who_is_put_out_without_having_been_asked_about_is_not_let_in_by_policy_later_either() -> None:
    harness = Harness(decision=replace(a_policy(), on_unavailable=OnUnavailable.ALLOW))
    for user in ("alice@example.com", "bob@example.com", "carol@example.com"):
        assert await harness.resolver.purge(Selector("standup", user), Change.REVOKE) == 0
    await harness.asks("bob@example.com")
    await harness.resolver.purge(Selector("standup", "carol@example.com"))
    harness.backend.always(REFUSED)
    await harness.passes(4000)
    assert (await harness.asks()).allowed is False
    assert (await harness.asks("bob@example.com")).allowed is True, "the backend has let him in since"
    assert (await harness.asks("carol@example.com")).allowed is True, "what is known about her was purged"
    assert (await harness.asks(room="board")).allowed is True


@in_virtual_time
async def test_who_is_revoked_is_let_in_when_the_backend_says_so() -> None:
    harness = Harness()
    await harness.asks()
    await harness.resolver.purge(Selector("standup"), Change.REVOKE)
    assert (await harness.asks()).allowed is True
    assert (await harness.asks()).source is Source.HIT


@in_virtual_time
async def test_what_is_suspect_is_asked_again_and_is_the_answer_only_while_the_backend_is_away() -> None:
    harness = Harness()
    await harness.asks()
    assert await harness.resolver.purge(Selector(room="standup"), Change.SUSPECT) == 1
    harness.backend.always(REFUSED)
    assert (await harness.asks()).detail == "suspect"
    harness.backend.well()
    assert (await harness.asks()).source is Source.BACKEND
    assert (await harness.asks()).source is Source.HIT


@in_virtual_time
async def test_an_answer_that_was_under_way_when_its_room_became_suspect_is_suspect() -> None:
    harness = Harness()
    harness.backend.says(after(1, allow()))
    waiting = harness.soon()
    await settled()
    await harness.resolver.purge(Selector(room="standup"), Change.SUSPECT)
    harness.backend.says(REFUSED, REFUSED)
    assert (await waiting).detail == "suspect"


@in_virtual_time
async def test_a_config_can_be_suspect_too() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.asks()
    await harness.resolver.purge(Selector("standup", endpoint=CONFIG), Change.SUSPECT)
    assert (await harness.asks_config()).source is Source.BACKEND
    assert (await harness.asks()).source is Source.HIT


@in_virtual_time
async def test_who_asks_after_a_purge_does_not_join_a_question_from_before_it() -> None:
    harness = Harness()
    harness.backend.says(after(1, allow()), deny("Cancelled"))
    waiting = harness.soon()
    await settled()
    await harness.resolver.purge(Selector(room="standup"))
    assert (await harness.asks()).allowed is False
    await waiting
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_looking_changes_nothing() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(16)
    key = harness.query(DECISION, roomName="standup", userJid="alice@example.com").key
    view = harness.resolver.preview(key)
    assert (view.permit, view.plan.refresh) == (Permit.CLOSED, True)
    assert len(harness.backend.calls) == 1
