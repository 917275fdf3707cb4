"""The resolver and a definite deny."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.decisions.cache import Selector
from tests.unit.harness import (
    Harness,
    allow,
    broken,
    deny,
    now,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_a_deny_replaces_an_allow_at_once() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(20)
    harness.backend.says(deny("Cancelled"))
    await harness.asks()  # answered from memory, refreshed behind
    await settled()
    assert (await harness.asks()).allowed is False
    harness.backend.always(broken())
    await harness.passes(100)
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_an_older_allow_that_arrives_after_a_deny_lets_nobody_in() -> None:
    harness = Harness()
    old = harness.backend.hold()
    first = harness.soon()
    await settled()
    await harness.resolver.purge(Selector(room="standup"))  # those who ask from now on share no call with the first
    harness.backend.says(deny("Cancelled"))
    assert (await harness.asks()).allowed is False
    old.comes(allow())
    assert (await first).allowed is False
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_a_newer_allow_after_a_deny_lets_in() -> None:
    harness = Harness()
    harness.backend.says(deny(), allow())
    await harness.asks()
    await harness.passes(6)
    assert (await harness.asks()).allowed is True


@in_virtual_time
async def test_a_deny_is_on_disk_before_it_is_answered() -> None:
    harness = Harness()
    harness.disk.persist_takes = 0.1
    harness.backend.says(deny())
    begun = now()
    await harness.asks()
    assert now() - begun == pytest.approx(0.1, abs=0.01)
    assert harness.disk.persisted == 1


@in_virtual_time
async def test_a_deny_waits_a_quarter_of_a_second_for_a_slow_disk_and_no_longer() -> None:
    harness = Harness()
    harness.disk.persist_takes = 60
    harness.backend.says(deny())
    begun = now()
    assert (await harness.asks()).allowed is False
    assert now() - begun == pytest.approx(0.25, abs=0.01)


@in_virtual_time
async def test_an_allow_does_not_wait_for_the_disk() -> None:
    harness = Harness()
    harness.disk.persist_takes = 60
    begun = now()
    assert (await harness.asks()).allowed is True
    assert now() == begun


@in_virtual_time
async def test_a_disk_that_hangs_while_it_is_being_loaded_delays_no_answer_past_its_deadline() -> None:
    harness = Harness()
    harness.disk.recall_takes = 1e6
    begun = now()
    answer = await asyncio.wait_for(harness.asks(), 10)
    assert now() - begun < 4.0
    assert answer.allowed is True


@in_virtual_time
async def test_a_disk_that_fails_while_it_is_being_loaded_turns_nobody_away() -> None:
    harness = Harness()
    harness.disk.recall_fails = OSError("disk on fire")
    assert (await harness.asks()).allowed is True
