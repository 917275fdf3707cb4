"""What an operator has purged does not come back."""

from __future__ import annotations

from sidecar.core.breaker import Permit
from sidecar.core.model import Source
from sidecar.decisions.cache import Selector
from tests.unit.harness import (
    DECISION,
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
async def test_an_answer_that_was_under_way_when_its_room_was_purged_is_not_remembered() -> None:
    harness = Harness()
    harness.backend.says(after(1, allow()), deny("Cancelled"))
    waiting = harness.soon()
    await settled()
    await harness.resolver.purge(Selector(room="standup"))
    assert (await waiting).allowed is True
    answer = await harness.asks()
    assert (answer.allowed, answer.source) == (False, Source.BACKEND)


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
