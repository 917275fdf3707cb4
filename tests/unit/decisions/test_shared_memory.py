"""What one sidecar hears of the others: each message counts, whatever comes before it, and whenever it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from sidecar.core.contact import Batch
from sidecar.core.fences import MISSING
from sidecar.core.model import Key, Verdict
from sidecar.core.sealed import Found, Kept, Sealer, change_message
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.shared_memory import SharedMemory
from sidecar.errors import DiskError, EngineError
from sidecar.facts import Crashed, Fact
from tests.unit.builders import DENY, DENY_LIFETIMES, a_key, a_policy, an_entry
from tests.unit.virtual import VirtualClock, in_virtual_time

SEALER = Sealer(b"key")
BROKEN_ROOM = "a room that leads to a defect"


def denied(key: Key) -> bytes:
    name = SEALER.key(key)
    content = SEALER.pack(name, Kept(Verdict.DENY, DENY, "epoch", 1_000, DENY_LIFETIMES, (MISSING,)))
    return SEALER.say({"kind": "deny", "room": key.room, "key": name, "from": "another"}, content)


def purged(room: str) -> bytes:
    return SEALER.say({**change_message(Selector(room), Change.DROP, SEALER), "from": "another"})


class EngineThatSays:
    """What is said comes with the next beat."""

    members, replicas, before = 1, 0, ""

    def __init__(self) -> None:
        self.said: list[bytes] = [b""]
        self.taken_away: list[tuple[int, bytes]] = []
        self.says_changes = True
        self.reading, self.may_answer = asyncio.Event(), asyncio.Event()

    async def beat(self, position: int, *_: object) -> Batch:
        numbered = tuple((number + 1, 1_000, content) for number, content in enumerate(self.said))
        return Batch("epoch", 1_000, len(self.said), numbered[position:])

    async def changes(self) -> tuple[int, list[Any]]:
        if not self.says_changes:
            raise EngineError("no answer in time")
        return 1_000, self.taken_away

    async def present(self, _: object) -> tuple[str, list[Any]]:
        return "epoch", []

    async def read(self, *_: object) -> Found:
        self.reading.set()
        await self.may_answer.wait()
        return Found("epoch", 1_000, (MISSING,))


class Disk:
    """Both files: what is heard changes the one, and the position is in the other."""

    def __init__(self) -> None:
        self.fails = False
        self.heard: list[tuple[str, int]] = []

    async def persist(self) -> None:
        if self.fails:
            raise DiskError("the decisions cannot be written")

    async def hear(self, epoch: str, position: int) -> None:
        self.heard.append((epoch, position))


class SlowClock(VirtualClock):
    """A millisecond passes from each reading to the next."""

    HAIR = 0.001


def a_memory(
    engine: EngineThatSays,
    emit: Callable[[Fact], None],
    clock: VirtualClock | None = None,
    disk: Disk | None = None,
    taken_away: list[object] | None = None,
) -> tuple[SharedMemory, Cache]:
    """One sidecar, and its cache. `taken_away`: as of when something was taken away."""

    def policy_for(_: object, room: str) -> Any:
        if room == BROKEN_ROOM:
            raise ZeroDivisionError
        return a_policy()

    async def purge(_: object, __: object, at: float) -> None:
        if taken_away is not None:
            taken_away.append(at)

    cache, clock, disk = Cache(Limits()), clock or VirtualClock(), disk or Disk()
    of_engine, asked, journal = cast("Any", engine), cast("Any", lambda _: ()), cast("Any", disk)
    memory = SharedMemory(
        cache,
        of_engine,
        SEALER,
        lambda: policy_for,
        asked,
        purge,
        disk.persist,
        "own",
        journal,
        clock,
        emit,
        lambda _: "new",
    )
    return memory, cache


async def heard(memory: SharedMemory, engine: EngineThatSays, messages: Sequence[bytes]) -> None:
    """These messages come in one beat."""
    await memory._hear(None)
    engine.said += messages
    await memory._hear(None)


@in_virtual_time
async def test_a_message_that_cannot_be_carried_out_takes_no_other_one_with_it() -> None:
    engine, facts = EngineThatSays(), list[Fact]()
    memory, cache = a_memory(engine, facts.append)
    cache.put(a_key(), an_entry(asked_at=asyncio.get_running_loop().time() - 100))
    await heard(memory, engine, [denied(a_key(BROKEN_ROOM)), denied(a_key())])
    entry = cache.get(a_key())
    assert entry is not None
    assert entry.verdict is Verdict.DENY
    assert any(isinstance(fact, Crashed) for fact in facts)


@in_virtual_time
async def test_a_deny_that_is_heard_while_the_engine_is_read_counts_for_this_question() -> None:
    engine = EngineThatSays()
    memory, cache = a_memory(engine, lambda _: None)
    await memory._hear(None)
    engine.said.append(denied(a_key()))
    recalled = asyncio.ensure_future(memory.recall(a_key()))
    await engine.reading.wait()
    await memory._hear(None)
    engine.may_answer.set()
    await recalled
    entry = cache.get(a_key())
    assert entry is not None
    assert entry.verdict is Verdict.DENY


@in_virtual_time
async def test_until_it_is_known_what_was_taken_away_before_this_sidecar_came_it_is_not_in_touch() -> None:
    engine, taken_away = EngineThatSays(), list[object]()
    memory, _ = a_memory(engine, lambda _: None, taken_away=taken_away)
    engine.taken_away = [(400, b"said with an older key"), (500, purged(a_key().room))]
    engine.says_changes = False
    with pytest.raises(EngineError):
        await memory._hear(None)
    memory.contact.joined()
    with pytest.raises(EngineError):
        await memory._hear(None)
    assert not memory.in_touch
    engine.says_changes = True
    await memory._hear(None)
    assert memory.in_touch
    assert not memory._unreadable
    assert taken_away == [pytest.approx(asyncio.get_running_loop().time() - 0.5)]


@in_virtual_time
async def test_a_deny_of_somebody_unknown_does_not_come_back_after_it_was_purged() -> None:
    engine = EngineThatSays()
    memory, cache = a_memory(engine, lambda _: None)
    engine.may_answer.set()
    await heard(memory, engine, [denied(a_key()), purged(a_key().room)])
    await asyncio.sleep(3600)
    await memory.recall(a_key())
    assert cache.get(a_key()) is None


@in_virtual_time
async def test_a_deny_of_somebody_unknown_counts_after_somebody_else_was_purged() -> None:
    engine = EngineThatSays()
    memory, cache = a_memory(engine, lambda _: None)
    engine.may_answer.set()
    await heard(memory, engine, [denied(a_key()), purged("another room")])
    await memory.recall(a_key())
    assert cache.get(a_key()) is not None


@in_virtual_time
async def test_questions_are_answered_while_many_messages_are_carried_out() -> None:
    engine = EngineThatSays()
    memory, _ = a_memory(engine, lambda _: None, SlowClock())
    hearing = asyncio.ensure_future(heard(memory, engine, [denied(a_key(f"room {number}")) for number in range(100)]))
    turns = 0
    while not hearing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10


@in_virtual_time
async def test_no_position_is_kept_before_what_was_heard_until_there_is_on_disk() -> None:
    engine, disk = EngineThatSays(), Disk()
    memory, _ = a_memory(engine, lambda _: None, disk=disk)
    disk.fails = True
    await heard(memory, engine, [denied(a_key())])
    keeping = asyncio.ensure_future(memory._keep_position())
    await asyncio.sleep(60)
    assert not disk.heard
    disk.fails = False
    await asyncio.sleep(60)
    assert disk.heard[-1] == ("epoch", 2)
    keeping.cancel()


@in_virtual_time
async def test_a_deny_that_is_heard_while_the_disk_is_read_takes_the_place_of_what_was_read() -> None:
    engine = EngineThatSays()
    memory, cache = a_memory(engine, lambda _: None)
    cache.changes.loading = True
    await heard(memory, engine, [denied(a_key())])
    cache.restore_all([(a_key(), an_entry(asked_at=asyncio.get_running_loop().time() - 100))])
    cache.changes.loading = False
    await memory._hear(None)
    entry = cache.get(a_key())
    assert entry is not None
    assert entry.verdict is Verdict.DENY
    assert cache.dirty == {a_key(): entry}
