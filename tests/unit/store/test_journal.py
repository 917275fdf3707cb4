"""The changes that other shards must hear of outlive the process."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from sidecar.clock import SystemClock
from sidecar.core.model import Endpoint
from sidecar.core.selection import Change, Made, Selector
from sidecar.store import Store

KICKED = Made(Selector("standup", "ann@example.org", endpoint=Endpoint.VALIDATE_ACCESS), Change.REVOKE, 0.0)
FORGOTTEN = Made(Selector(meeting_id='"m1"'), Change.DROP, 0.0)


def a_store(folder: Path) -> Store:
    return Store(folder, SystemClock(), "boot", lambda _: None)


async def test_a_change_is_there_after_a_restart_with_the_epoch_that_has_it(tmp_path: Path) -> None:
    now = SystemClock().wall()
    async with a_store(tmp_path) as store:
        first = await store.journal.add(KICKED._replace(made_at=now))
        await store.journal.add(FORGOTTEN._replace(made_at=now))
        await store.journal.said(first, "e1")
    async with a_store(tmp_path) as store:
        rows = await store.journal.read()
    assert [made for _, made in rows] == [KICKED._replace(made_at=now, epoch="e1"), FORGOTTEN._replace(made_at=now)]


async def test_a_change_of_the_day_before_is_forgotten(tmp_path: Path) -> None:
    now = SystemClock().wall()
    async with a_store(tmp_path) as store:
        await store.journal.add(KICKED._replace(made_at=now - 86_500, epoch="e1"))
        await store.journal.add(FORGOTTEN._replace(made_at=now))
        assert [made.change for _, made in await store.journal.read()] == [Change.DROP]


async def test_a_change_that_was_never_said_is_not_forgotten_when_the_clock_was_set(tmp_path: Path) -> None:
    now = SystemClock().wall()
    async with a_store(tmp_path) as store:
        await store.journal.add(KICKED._replace(made_at=now - 200_000))
        await store.journal.add(FORGOTTEN._replace(made_at=now))
        assert [made.change for _, made in await store.journal.read()] == [KICKED.change, Change.DROP]


async def test_what_was_heard_is_there_after_a_restart(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        assert await store.journal.heard() == ("", 0)
        await store.journal.hear("e1", 5)
        await store.journal.hear("e2", 7)
    async with a_store(tmp_path) as store:
        assert await store.journal.heard() == ("e2", 7)


@pytest.mark.parametrize("damage", ["position = 'five'", "position = position + 16", "epoch = 'f1'", "epoch = x'6531'"])
async def test_what_was_heard_counts_as_nothing_where_the_row_is_damaged(tmp_path: Path, damage: str) -> None:
    async with a_store(tmp_path) as store:
        await store.journal.hear("e1", 5)
    with contextlib.closing(sqlite3.connect(tmp_path / "orders.db")) as connection:
        connection.execute(f"UPDATE heard_until SET {damage}")
        connection.commit()
    async with a_store(tmp_path) as store:
        assert await store.journal.heard() == ("", 0)


async def test_a_shard_keeps_its_name(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        assert await store.journal.name("first") == "first"
    async with a_store(tmp_path) as store:
        assert await store.journal.name("second") == "first"


async def test_a_shard_keeps_its_new_name(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        await store.journal.name("first")
        await store.journal.rename("second")
    async with a_store(tmp_path) as store:
        assert await store.journal.name("third") == "second"


async def test_the_names_of_all_shards_are_there_after_a_restart(tmp_path: Path) -> None:
    async with a_store(tmp_path) as store:
        assert await store.journal.shards() == []
        await store.journal.keep_shards(["one", "two"])
        await store.journal.keep_shards(["two", "three"])
    async with a_store(tmp_path) as store:
        assert await store.journal.shards() == ["two", "three"]
