"""The gateway and a definite deny."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.decisions.cache import Selector
from tests.unit.harness import (
    Stage,
    allow,
    broken,
    deny,
    now,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_a_deny_replaces_an_allow_at_once() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(20)
    stage.backend.says(deny("Cancelled"))
    await stage.asks()  # answered from memory, refreshed behind
    await settled()
    assert (await stage.asks()).allowed is False
    stage.backend.always(broken())
    await stage.passes(100)
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_an_older_allow_that_arrives_after_a_deny_lets_nobody_in() -> None:
    stage = Stage()
    old = stage.backend.hold()
    first = stage.soon()
    await settled()
    await stage.gateway.purge(Selector(room="standup"))  # those who ask from now on share no flight with the first
    stage.backend.says(deny("Cancelled"))
    assert (await stage.asks()).allowed is False
    old.comes(allow())
    assert (await first).allowed is False
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_a_newer_allow_after_a_deny_lets_in() -> None:
    stage = Stage()
    stage.backend.says(deny(), allow())
    await stage.asks()
    await stage.passes(6)
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_a_deny_is_on_disk_before_it_is_answered() -> None:
    stage = Stage()
    stage.disk.persist_takes = 0.1
    stage.backend.says(deny())
    begun = now()
    await stage.asks()
    assert now() - begun == pytest.approx(0.1, abs=0.01)
    assert stage.disk.persisted == 1


@in_virtual_time
async def test_a_deny_waits_a_quarter_of_a_second_for_a_slow_disk_and_no_longer() -> None:
    stage = Stage()
    stage.disk.persist_takes = 60
    stage.backend.says(deny())
    begun = now()
    assert (await stage.asks()).allowed is False
    assert now() - begun == pytest.approx(0.25, abs=0.01)


@in_virtual_time
async def test_an_allow_does_not_wait_for_the_disk() -> None:
    stage = Stage()
    stage.disk.persist_takes = 60
    begun = now()
    assert (await stage.asks()).allowed is True
    assert now() == begun


@in_virtual_time
async def test_a_disk_that_hangs_while_it_is_being_loaded_delays_no_answer_past_its_deadline() -> None:
    stage = Stage()
    stage.disk.recall_takes = 1e6
    begun = now()
    answer = await asyncio.wait_for(stage.asks(), 10)
    assert now() - begun < 4.0
    assert answer.allowed is True


@in_virtual_time
async def test_a_disk_that_fails_while_it_is_being_loaded_turns_nobody_away() -> None:
    stage = Stage()
    stage.disk.recall_fails = OSError("disk on fire")
    assert (await stage.asks()).allowed is True
