"""A deny makes the other allows of its room suspect."""

from __future__ import annotations

import pytest

from sidecar.core.model import Source
from sidecar.web.responses import cache_status
from tests.unit.harness import (
    Harness,
    a_room_with_a_deny,
    after,
    allow,
    broken,
    deny,
    now,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_after_a_deny_the_next_join_of_each_other_user_of_the_room_asks_first() -> None:
    harness = Harness()
    await harness.asks("elsewhere@example.com", "other-room")
    await a_room_with_a_deny(harness)
    harness.backend.always(deny("Cancelled"))
    for number in range(3):
        assert (await harness.asks(f"user-{number}@example.com")).allowed is False
    assert len(harness.backend.calls) == 3
    assert (await harness.asks("elsewhere@example.com", "other-room")).source is Source.HIT


@in_virtual_time
async def test_a_suspect_allow_is_no_excuse_for_a_slow_backend() -> None:
    harness = Harness()
    await a_room_with_a_deny(harness)
    harness.backend.says(after(1.9, deny("Cancelled")))
    assert (await harness.asks("user-0@example.com")).allowed is False


@in_virtual_time
async def test_an_allow_that_becomes_suspect_while_a_slow_backend_is_asked_does_not_answer_for_it() -> None:
    harness = Harness()
    await harness.asks("user@example.com")
    await harness.passes(31)
    harness.backend.says(after(2.0, allow()))
    begun = now()
    slow = harness.soon("user@example.com")  # stale: after answer_within, memory would answer
    await harness.passes(0.2)
    harness.backend.says(deny("Cancelled"), after(1.0, deny("Cancelled")))
    await harness.asks("late@example.com")
    assert (await slow).allowed is False  # after answer_within, it was asked about once more
    assert now() - begun == pytest.approx(1.5, abs=0.01)


@in_virtual_time
async def test_a_suspect_allow_answers_when_the_backend_is_unavailable() -> None:
    harness = Harness()
    await a_room_with_a_deny(harness)
    harness.backend.says(broken())
    answer = await harness.asks("user-0@example.com")
    assert (answer.allowed, answer.source) == (True, Source.STALE)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=14; detail=suspect"


@in_virtual_time
async def test_a_suspect_allow_that_is_confirmed_is_no_longer_suspect() -> None:
    harness = Harness()
    await a_room_with_a_deny(harness)
    await harness.asks("user-0@example.com")
    assert (await harness.asks("user-0@example.com")).source is Source.HIT
    assert len(harness.backend.calls) == 1


@in_virtual_time
async def test_an_allow_asked_before_the_deny_and_arriving_after_it_is_suspect() -> None:
    harness = Harness()
    held = harness.backend.hold()
    waiting = harness.soon("user@example.com")
    await settled()
    harness.backend.says(deny("Cancelled"))
    await harness.asks("late@example.com")
    held.comes(allow())
    await waiting
    harness.backend.says(deny("Cancelled"))
    assert (await harness.asks("user@example.com")).allowed is False


@in_virtual_time
async def test_who_asks_after_a_deny_does_not_take_the_answer_to_a_question_asked_before_it() -> None:
    harness = Harness()
    await harness.asks("user@example.com")
    await harness.passes(16)
    held = harness.backend.hold()
    await harness.asks("user@example.com")  # from memory; a refresh is behind it
    await settled()
    harness.backend.says(deny("Cancelled"))
    await harness.asks("late@example.com")
    harness.backend.says(deny("Cancelled"))
    suspect = harness.soon("user@example.com")
    await settled()
    held.comes(allow())
    assert (await suspect).allowed is False


@in_virtual_time
async def test_a_user_who_is_denied_again_and_again_does_not_disable_the_cache_of_the_room() -> None:
    harness = Harness(rooms={})
    people = [f"user-{number}@example.com" for number in range(10)]
    for who in people:
        await harness.asks(who)
    harness.backend.calls.clear()
    joins = 0

    async def step(query: object, seconds: float) -> object:
        caller = getattr(query, "caller", "")
        return deny() if caller == "denied@example.com" else allow()

    harness.backend.always(step)  # type: ignore[arg-type]
    for _ in range(600):  # ten minutes, a question every second, and everybody joins again every second
        await harness.asks("denied@example.com")
        for who in people:
            assert (await harness.asks(who)).allowed is True
            joins += 1
        await harness.passes(1)
    calls = [call for call in harness.backend.calls if call.query.caller != "denied@example.com"]
    assert joins == 6000
    assert len(calls) <= joins / 5
    assert len(harness.backend.calls) - len(calls) <= 600 / 5


@in_virtual_time
async def test_denies_within_a_few_seconds_make_the_room_suspect_once() -> None:
    harness = Harness()
    await harness.asks("user@example.com")
    for number in range(20):
        harness.backend.says(deny())
        await harness.asks(f"denied-{number}@example.com")
        await harness.asks("user@example.com")
        await harness.passes(0.2)
    asked = [call for call in harness.backend.calls if call.query.caller == "user@example.com"]
    assert len(asked) == 2
