"""What other shards must hear is on disk until the engine has it, and is said again to another epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import pytest

from sidecar.core.selection import Change, Made, Selector
from sidecar.decisions.to_say import ToSay
from sidecar.errors import DiskError, EngineError
from tests.unit.virtual import VirtualClock, in_virtual_time

ANN = Selector("standup", "ann@example.org")
BOB = Selector("standup", "bob@example.org")


class Disk:
    """Outlives a process."""

    def __init__(self) -> None:
        self.rows: dict[int, Made] = {}
        self.fails = False

    async def name(self, new: str) -> str:
        return new

    async def rename(self, new: str) -> None: ...

    async def shards(self) -> list[str]:
        return []

    async def keep_shards(self, names: Collection[str]) -> None: ...

    async def heard(self) -> tuple[str, int]:
        return "", 0

    async def hear(self, epoch: str, position: int) -> None:
        """Nothing is heard here."""

    async def add(self, made: Made) -> int:
        if self.fails:
            raise DiskError("full")
        number = len(self.rows) + 1
        self.rows[number] = made
        return number

    async def said(self, number: int, epoch: str) -> None:
        self.rows[number] = self.rows[number]._replace(epoch=epoch)

    async def read(self) -> list[tuple[int, Made]]:
        return list(self.rows.items())


class Engine:
    """Takes what is said, in its epoch."""

    def __init__(self) -> None:
        self.epoch = "e1"
        self.down = False
        self.heard: list[Selector] = []

    async def say(self, changes: Sequence[Made]) -> str:
        if self.down:
            raise EngineError("away")
        epoch = self.epoch
        await asyncio.sleep(0.01)
        self.heard += [made.selector for made in changes]
        return epoch


async def a_process(disk: Disk, engine: Engine, clock: VirtualClock | None = None) -> ToSay:
    it = ToSay(disk, clock or VirtualClock(), engine.say)
    await it.load()
    return it


async def add(it: ToSay, selector: Selector, within: float = 1.0) -> bool:
    """With somebody who writes when he is woken."""
    tasks: list[asyncio.Future[None]] = []
    return await it.add(selector, Change.DROP, lambda: tasks.append(asyncio.ensure_future(write(it))), within)


async def write(it: ToSay) -> None:
    try:
        await it.write()
    except EngineError:
        return


@in_virtual_time
async def test_what_the_engine_has_is_not_said_again_after_a_restart() -> None:
    disk, engine = Disk(), Engine()
    it = await a_process(disk, engine)
    it.repeat("e1")
    assert await add(it, ANN)
    await asyncio.sleep(1)
    again = await a_process(disk, engine)
    again.repeat("e1")
    assert not again
    assert engine.heard == [ANN]


@in_virtual_time
async def test_what_the_engine_could_not_take_is_said_after_a_restart_in_order() -> None:
    disk, engine = Disk(), Engine()
    engine.down = True
    it = await a_process(disk, engine)
    assert not await add(it, ANN, 0)
    assert not await add(it, BOB, 0)
    engine.down = False
    again = await a_process(disk, engine)
    assert len(again) == 2
    await again.write()
    assert engine.heard == [ANN, BOB]
    assert not again


@in_virtual_time
async def test_another_epoch_hears_of_all_of_the_last_day_also_after_a_restart() -> None:
    disk, engine, clock = Disk(), Engine(), VirtualClock()
    it = await a_process(disk, engine, clock)
    it.repeat("e1")
    await add(it, ANN)
    await asyncio.sleep(ToSay.KEPT - 10)
    await add(it, BOB)
    await asyncio.sleep(20)
    again = await a_process(disk, engine, clock)
    engine.epoch = "e2"
    again.repeat("e2")
    await again.write()
    assert engine.heard == [ANN, BOB, BOB]
    again.repeat("e2")
    assert not again


@in_virtual_time
async def test_what_was_on_its_way_to_an_epoch_that_has_ended_is_said_to_the_next() -> None:
    disk, engine = Disk(), Engine()
    it = await a_process(disk, engine)
    it.repeat("e1")
    adding = asyncio.ensure_future(add(it, ANN))
    await asyncio.sleep(0.005)
    engine.epoch = "e2"
    it.repeat("e2")
    await adding
    await asyncio.sleep(1)
    assert engine.heard == [ANN, ANN]
    assert not it


@in_virtual_time
async def test_what_neither_the_engine_nor_the_disk_takes_is_refused() -> None:
    disk, engine = Disk(), Engine()
    disk.fails = True
    it = await a_process(disk, engine)
    assert await add(it, ANN)
    engine.down = True
    with pytest.raises(DiskError):
        await add(it, BOB, 0)
