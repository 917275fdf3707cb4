"""What an operator has purged does not come back."""

from __future__ import annotations

from sidecar.core.breaker import Permit
from sidecar.core.model import Source
from sidecar.decisions.cache import Selector
from tests.unit.harness import (
    DECISION,
    Stage,
    after,
    allow,
    deny,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_after_a_purge_the_next_question_asks_the_backend() -> None:
    stage = Stage()
    await stage.asks()
    await stage.asks("bob@example.com", "board")
    assert await stage.gateway.purge(Selector(room="standup")) == 1
    stage.backend.says(deny())
    assert (await stage.asks()).allowed is False
    assert (await stage.asks("bob@example.com", "board")).source is Source.HIT


@in_virtual_time
async def test_an_answer_that_was_under_way_when_its_room_was_purged_is_not_remembered() -> None:
    stage = Stage()
    stage.backend.says(after(1, allow()), deny("Cancelled"))
    waiting = stage.soon()
    await settled()
    await stage.gateway.purge(Selector(room="standup"))
    assert (await waiting).allowed is True
    answer = await stage.asks()
    assert (answer.allowed, answer.source) == (False, Source.BACKEND)


@in_virtual_time
async def test_who_asks_after_a_purge_does_not_join_a_question_from_before_it() -> None:
    stage = Stage()
    stage.backend.says(after(1, allow()), deny("Cancelled"))
    waiting = stage.soon()
    await settled()
    await stage.gateway.purge(Selector(room="standup"))
    assert (await stage.asks()).allowed is False
    await waiting
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_looking_changes_nothing() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(16)
    key = stage.query(DECISION, roomName="standup", userJid="alice@example.com").key
    view = stage.gateway.preview(key)
    assert (view.permit, view.plan.refresh) == (Permit.CLOSED, True)
    assert len(stage.backend.calls) == 1
