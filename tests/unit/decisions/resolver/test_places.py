"""Calls under way are bounded, and shared fairly between rooms."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.model import Lifetimes, Source
from tests.unit.builders import a_policy
from tests.unit.harness import (
    HANG,
    Harness,
    after,
    allow,
    config,
    now,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_a_thousand_users_of_one_room_at_once_are_all_answered_in_time() -> None:
    harness = Harness()
    harness.backend.always(after(0.05, allow()))
    begun = now()
    answers = await asyncio.gather(*(harness.asks(f"u{n}@example.com") for n in range(1000)))
    assert all(answer.allowed for answer in answers)
    assert now() - begun < 4.0
    assert harness.backend.most_at_once <= 64


@in_virtual_time
async def test_a_room_that_hangs_leaves_places_for_the_others() -> None:
    harness = Harness()
    harness.backend.always(HANG, room="broken")
    hanging = [harness.soon(f"u{n}@example.com", "broken") for n in range(500)]
    await settled()
    begun = now()
    answers = await asyncio.gather(*(harness.asks(f"v{n}@example.com", f"room-{n}") for n in range(30)))
    assert all(answer.allowed for answer in answers)
    assert now() == begun
    assert harness.changes() == []
    await asyncio.gather(*hanging)
    assert harness.backend.most_at_once <= 64


@in_virtual_time
async def test_a_refresh_behind_an_answer_takes_no_place_that_somebody_waits_for() -> None:
    harness = Harness(max_in_flight=8)
    for number in range(40):
        await harness.asks(f"u{number}@example.com", f"room-{number}")
    await harness.passes(16)
    harness.backend.always(after(1.0, allow()))
    for number in range(40):
        assert (await harness.asks(f"u{number}@example.com", f"room-{number}")).source is Source.STALE
    await settled()
    begun = now()
    assert (await harness.asks("new@example.com", "new")).allowed is True
    assert now() - begun == pytest.approx(1.0, abs=0.01)


@in_virtual_time
async def test_a_room_whose_settings_could_not_be_refreshed_for_want_of_a_place_is_delivered_later() -> None:
    lively = a_policy(allow=Lifetimes(5.0, 10.0, 86_400.0))
    harness = Harness(config=lively, max_in_flight=2)
    await harness.asks_config()
    await harness.passes(6)
    harness.backend.always(after(1.0, config()))
    busy = [asyncio.ensure_future(harness.asks_config(f"room-{number}")) for number in range(2)]
    await settled()
    assert (await harness.asks_config()).source is Source.STALE
    await asyncio.gather(*busy)
    assert [query.key.room for query in harness.delivered_later] == ["standup"]


@in_virtual_time
async def test_a_thousand_strangers_are_all_let_in_by_a_backend_that_takes_half_a_second() -> None:
    harness = Harness(max_in_flight=1000)
    harness.backend.always(after(0.5, allow()))
    answers = await asyncio.gather(*(harness.asks(f"u{n}@example.com", f"room-{n}") for n in range(1000)))
    assert all(answer.allowed for answer in answers)
    assert harness.changes() == []


@in_virtual_time
async def test_a_meeting_of_a_thousand_begins_within_four_answers_of_the_backend() -> None:
    harness = Harness(max_in_flight=1000)
    harness.backend.always(after(0.2, allow()))
    begun = now()
    answers = await asyncio.gather(*(harness.asks(f"u{n}@example.com") for n in range(1000)))
    assert all(answer.allowed for answer in answers)
    assert now() - begun < 4.5 * 0.2
