"""What becomes dirty reaches the disk, what the disk remembers reaches the cache, and neither undoes the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from sidecar.core.breaker import Permit
from sidecar.core.decision_body import is_lasting
from sidecar.core.model import SUSPECT, Endpoint, Entry, Key, Verdict
from sidecar.core.policy import Freshness
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache, Limits
from sidecar.decisions.changes import Changes
from sidecar.decisions.view import look
from sidecar.decisions.write_behind import DecisionStore, WriteBehind
from sidecar.errors import DiskError
from tests.unit.builders import LOBBY, a_key, a_policy
from tests.unit.disk import FakeClock, an_entry, decisions, loaded, until


class FakeStore:
    """A disk in memory that can be held, and can fail."""

    def __init__(self, rows: Mapping[Key, Entry] | None = None) -> None:
        self.rows: dict[Key, Entry] = dict(rows or {})
        self.commits: list[tuple[dict[Key, Entry | None], bool]] = []
        self.generation = 1
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.recalls = 0
        self.batch = 2
        self.missing = 0.0
        self.crash_after_replace = False
        self.full = False
        self.lacks = False
        self.pages: int | None = None
        """So many uses, and then it hangs."""

    async def _disk(self) -> None:
        if self.pages is not None:
            self.pages -= 1
            if self.pages < 0:
                self.gate.clear()
        await self.gate.wait()
        if self.broken:
            raise DiskError("the disk is full")

    async def save(self, rows: Mapping[Key, Entry | None], *, durable: bool = False) -> None:
        await self._disk()
        if self.full and not all(row is None or is_lasting(row) for row in rows.values()):
            raise DiskError("the disk is full")
        self.commits.append((dict(rows), durable))
        for key, entry in rows.items():
            self.rows.pop(key, None)
            if entry is not None:
                self.rows[key] = entry

    async def lacks_denies(self) -> bool:
        return self.lacks

    def first(self) -> AsyncIterator[list[tuple[Key, Entry]]]:
        return self._read({key: entry for key, entry in self.rows.items() if is_lasting(entry)})

    def load(self) -> AsyncIterator[list[tuple[Key, Entry]]]:
        return self._read({key: entry for key, entry in self.rows.items() if not is_lasting(entry)})

    def missed(self) -> float:
        return self.missing

    async def _read(self, remembered: Mapping[Key, Entry]) -> AsyncIterator[list[tuple[Key, Entry]]]:
        rows = list(remembered.items())
        for start in range(0, len(rows), self.batch):
            await self._disk()
            yield rows[start : start + self.batch]
        await self._disk()

    async def recall(self, key: Key) -> list[tuple[Key, Entry]]:
        self.recalls += 1
        await self._disk()
        return [(key, self.rows[key])] if key in self.rows else []

    async def replace(self, rows: Mapping[Key, Entry | None]) -> None:
        await self._disk()
        self.rows.clear()
        await self.save(rows, durable=True)
        self.broken = self.crash_after_replace


def a_private_room(room: str) -> Key:
    """The key under which it is remembered that a room's guests share no answer."""
    return Key(Endpoint.VALIDATE_ACCESS, room)


class Running:
    """A writer that runs while a test looks on."""

    def __init__(self, store: DecisionStore | None, cache: Cache | None = None, *, every: float = 0.005) -> None:
        self.cache = Cache(Limits()) if cache is None else cache
        self.writer = WriteBehind(self.cache, store, every=every, recall_within=0.05)

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.writer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


# ---- writing


async def test_what_becomes_dirty_is_written_behind() -> None:
    store = FakeStore()
    async with Running(store) as running:
        running.cache.put(a_key(), an_entry())
        await until(lambda: a_key() in store.rows)
        await until(lambda: not running.cache.dirty)
        running.cache.drop(a_key())
        await until(lambda: a_key() not in store.rows)


async def test_persist_returns_when_everything_dirty_is_on_disk_and_synced() -> None:
    store = FakeStore()
    async with Running(store, every=60.0) as running:
        await until(lambda: running.writer.loaded)
        running.cache.put(a_key(), an_entry(Verdict.DENY))
        await running.writer.persist()
        assert store.rows == {a_key(): an_entry(Verdict.DENY)}
        assert store.commits[-1][1]
        await running.writer.persist()


async def test_those_who_wait_share_one_commit() -> None:
    store = FakeStore()
    async with Running(store, every=60.0) as running:
        running.cache.put(a_key("first"), an_entry())
        store.gate.clear()
        first = asyncio.create_task(running.writer.persist())
        await asyncio.sleep(0)
        await until(lambda: not running.writer._waiting)
        for number in range(50):
            running.cache.put(a_key(f"room{number}"), an_entry())
        others = [asyncio.create_task(running.writer.persist()) for _ in range(50)]
        await asyncio.sleep(0)
        store.gate.set()
        await asyncio.gather(first, *others)
    written = [rows for rows, _ in store.commits if rows]
    assert [len(rows) for rows in written] == [1, 50]


async def test_a_persist_that_comes_during_a_commit_waits_for_the_next_one() -> None:
    store = FakeStore()
    async with Running(store, every=60.0) as running:
        running.cache.put(a_key("first"), an_entry())
        store.gate.clear()
        first = asyncio.create_task(running.writer.persist())
        await asyncio.sleep(0)
        await until(lambda: not running.writer._waiting)
        running.cache.put(a_key("second"), an_entry(Verdict.DENY))
        second = asyncio.create_task(running.writer.persist())
        await asyncio.sleep(0)
        store.gate.set()
        await second
        assert a_key("second") in store.rows
        await first


async def test_persist_says_so_when_the_disk_cannot_and_the_rows_go_there_later() -> None:
    store = FakeStore()
    async with Running(store) as running:
        await until(lambda: running.writer.loaded)
        store.broken = True
        running.cache.put(a_key(), an_entry(Verdict.DENY))
        with pytest.raises(DiskError):
            await running.writer.persist()
        store.broken = False
        await until(lambda: a_key() in store.rows)


async def test_what_changes_during_a_commit_stays_dirty() -> None:
    store = FakeStore()
    async with Running(store, every=60.0) as running:  # no round but those of persist()
        await until(lambda: running.writer.loaded)
        store.gate.clear()
        running.cache.put(a_key(), an_entry())
        commit = asyncio.create_task(running.writer.persist())
        await asyncio.sleep(0)
        await until(lambda: not running.writer._waiting)
        running.cache.put(a_key(), an_entry(Verdict.DENY))
        store.gate.set()
        await commit
        await running.writer.persist()
        assert store.rows == {a_key(): an_entry(Verdict.DENY)}


async def test_denies_go_first_and_no_transaction_is_large() -> None:
    store = FakeStore()
    cache = Cache(Limits())
    for number in range(4_500):
        cache.put(a_key(f"room{number}"), an_entry())
    for number in range(3):
        cache.drop(a_key(f"gone {number}"))
    cache.put(a_key("cancelled"), an_entry(Verdict.DENY))
    cache.separate_guests(a_key("cancelled", "guest"), 1_000.0)
    writer = WriteBehind(cache, store)
    await writer.stop()
    assert list(store.commits[0][0])[:2] == [a_key("cancelled"), a_private_room("cancelled")]
    assert [len(rows) for rows, _ in store.commits] == [6, 2_000, 2_000, 500]


async def test_a_deny_does_not_wait_for_allows_and_is_written_on_a_full_disk_too() -> None:
    store = FakeStore()
    async with Running(store, every=60.0) as running:
        await until(lambda: running.writer.loaded)
        store.full = True
        running.cache.put(a_key("open"), an_entry())
        for number in range(150):
            running.cache.put(a_key(f"cancelled {number}"), an_entry(Verdict.DENY))
        await running.writer.persist()
        assert len(store.rows) == 150
        assert a_key("open") in running.cache.dirty
        assert max(len(rows) for rows, _ in store.commits) == WriteBehind.FULL_DISK


WEAKENED = [an_entry(body=b'{"allowed":true,"requireLobby":true}'), an_entry()._replace(spread=SUSPECT)]


@pytest.mark.parametrize("weakened", WEAKENED, ids=["who has to wait", "suspect"])
async def test_an_allow_that_was_made_weaker_is_on_disk_when_persist_returns(weakened: Entry) -> None:
    store = FakeStore()
    async with Running(store, every=60.0) as running:
        await until(lambda: running.writer.loaded)
        running.cache.put(a_key("other"), an_entry())
        running.cache.put(a_key(), weakened)
        store.pages = 1  # whatever comes after the first commit never reaches the disk
        await running.writer.persist()
        assert store.rows == {a_key(): weakened}


@pytest.mark.parametrize("lacks", [True, False])
async def test_the_cache_knows_whether_denies_were_lost(lacks: bool) -> None:
    store = FakeStore()
    store.lacks = lacks
    async with Running(store) as running:
        await until(lambda: running.writer.loaded)
        assert running.cache.lacks_denies is lacks


async def test_a_disk_that_is_away_for_long_costs_no_memory_and_is_written_again() -> None:
    stale = {a_key("gone by now"): an_entry()}
    store, cache = FakeStore(stale), Cache(Limits(allows=10))
    writer = WriteBehind(cache, store)
    await writer.load()
    cache.drop(a_key("gone by now"))
    store.broken = True
    for number in range(WriteBehind.MOST_DIRTY + 100):
        cache.put(a_key(f"room{number}"), an_entry())
    with pytest.raises(DiskError):
        await writer.stop()
    assert not cache.dirty
    store.broken = False
    await writer.stop()
    assert store.rows == dict(cache.items())
    assert len(store.rows) == 10


def a_full_disk_with_many_changes(store: FakeStore, cache: Cache) -> WriteBehind:
    """One that has not been read yet."""
    writer = WriteBehind(cache, store)
    store.broken = True
    for number in range(WriteBehind.MOST_DIRTY + 1):
        cache.put(a_key(f"room{number}"), an_entry())
    return writer


async def test_what_is_dropped_while_the_disk_fails_does_not_come_back_from_it_but_denies_do() -> None:
    banned, gone, private = a_key(subject="jid mallory"), a_key("gone"), a_private_room("lecture")
    waits = a_key(subject="jid bob")
    store = FakeStore({gone: an_entry(), banned: an_entry(Verdict.DENY), private: an_entry(Verdict.PRIVATE)})
    store.rows[waits] = an_entry(body=LOBBY)
    cache = Cache(Limits(allows=10))
    writer = a_full_disk_with_many_changes(store, cache)
    cache.drop(gone)
    with pytest.raises(DiskError):
        await writer.stop()
    assert not cache.dirty
    store.broken = False
    await writer.recall(gone)
    await writer.load()
    assert cache.denies_known
    assert writer.loaded
    assert cache.get(gone) is None
    assert cache.get(banned) == an_entry(Verdict.DENY)
    assert cache.get(waits) == an_entry(body=LOBBY)
    assert cache.guests_are_separate("lecture")
    await writer.stop()
    assert store.rows == dict(cache.items())
    assert len(store.rows) == 13


async def test_a_deny_stays_dirty_however_long_the_disk_fails() -> None:
    store, cache = FakeStore(), Cache(Limits())
    writer = a_full_disk_with_many_changes(store, cache)
    cache.put(a_key("board"), an_entry(Verdict.DENY))
    cache.separate_guests(a_key("lecture", "guest"), 1_000.0)
    for _ in range(2):
        with pytest.raises(DiskError):
            await writer.stop()
        assert cache.dirty[a_key("board")] == an_entry(Verdict.DENY)
        assert list(cache.dirty) == [a_key("board"), a_private_room("lecture")]


async def test_denies_that_wait_do_not_count_as_too_many() -> None:
    store, cache = FakeStore(), Cache(Limits(denies=30_000))
    writer = a_full_disk_with_many_changes(store, cache)
    for number in range(25_000):
        cache.put(a_key(f"board {number}"), an_entry(Verdict.DENY))
    with pytest.raises(DiskError):
        await writer.stop()
    cache.put(a_key("one more"), an_entry())
    with pytest.raises(DiskError):
        await writer.stop()
    assert len(cache.dirty) == 25_001


async def test_a_file_that_is_written_again_never_lacks_the_denies() -> None:
    store, cache = FakeStore({a_key("board"): an_entry(Verdict.DENY)}), Cache(Limits())
    writer = WriteBehind(cache, store)
    await writer.load()
    cache.put(a_key("new"), an_entry(Verdict.DENY))
    cache.put(a_key("lobby"), an_entry(body=LOBBY))
    cache.put(a_key(), an_entry())
    store.generation += 1
    store.crash_after_replace = True
    with pytest.raises(DiskError):
        await writer.stop()
    assert set(store.rows) == {a_key("board"), a_key("new"), a_key("lobby")}
    store.crash_after_replace = store.broken = False
    await writer.stop()
    assert set(store.rows) == {a_key("board"), a_key("new"), a_key("lobby"), a_key()}


async def test_a_new_file_gets_everything_once_more() -> None:
    store, cache = FakeStore({a_key("known"): an_entry()}), Cache(Limits())
    writer = WriteBehind(cache, store)
    await writer.load()
    await writer.stop()
    store.rows.clear()
    store.generation += 1
    await writer.stop()
    assert store.rows == {a_key("known"): an_entry()}


async def test_the_disks_clock_is_written_now_and_then_though_nothing_happens() -> None:
    store = FakeStore()
    async with Running(store, every=0.001) as running:
        running.writer.CLOCK_ROUNDS = 5
        await until(lambda: len(store.commits) >= 2)
    assert all(rows == {} for rows, _ in store.commits)


async def test_a_change_ends_the_long_round_of_an_idle_sidecar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriteBehind, "IDLE", 1_000_000)
    store = FakeStore()
    async with Running(store, every=0.001) as running:
        await until(lambda: running.writer.loaded)
        for _ in range(10):
            await asyncio.sleep(0)  # the round has begun
        running.cache.put(a_key(), an_entry())
        await until(lambda: a_key() in store.rows)


@pytest.mark.parametrize("full", [False, True])
async def test_a_row_that_grants_more_than_the_new_one_is_gone_when_persist_returns(full: bool) -> None:
    moderator, user = an_entry(body=b'{"allowed":true,"reason":null,"isModerator":true}'), an_entry()
    store = FakeStore({a_key(): moderator})
    async with Running(store, every=60.0) as running:
        await until(lambda: running.writer.loaded)
        store.full = full
        running.cache.put(a_key(), user)
        await running.writer.persist(a_key())
        assert store.rows.get(a_key(), user) == user
        assert store.commits[-1 if full else -2] == ({a_key(): None}, True)
        await until(lambda: full or store.rows == {a_key(): user})
        assert (a_key() in running.cache.dirty) is full, "it is written when there is space"


async def test_what_was_written_without_a_sync_is_synced_when_persist_returns() -> None:
    store = FakeStore({a_key(): an_entry()})
    async with Running(store) as running:
        await until(lambda: running.writer.loaded)
        running.cache.drop(a_key())
        await until(lambda: not running.cache.dirty)
        assert not any(durable for _, durable in store.commits)
        await running.writer.persist()
        assert store.commits[-1] == ({}, True)
        count = len(store.commits)
        await running.writer.persist()
        assert len(store.commits) == count


async def test_a_purge_is_synced_also_where_only_allows_are_to_be_written() -> None:
    store = FakeStore({a_key(): an_entry()})
    async with Running(store) as running:
        await until(lambda: running.writer.loaded)
        running.cache.drop(a_key())
        await until(lambda: not running.cache.dirty)
        running.cache.put(a_key("other"), an_entry())
        await running.writer.purge(5_000.0, Selector(room="standup"))
        assert ({}, True) in store.commits


async def test_without_a_store_nothing_piles_up_and_nobody_waits() -> None:
    async with Running(None) as running:
        assert running.writer.loaded
        running.cache.put(a_key(), an_entry())
        await running.writer.persist()
        await running.writer.recall(a_key("b"))
        await until(lambda: not running.cache.dirty)
        assert await running.writer.purge(2_000.0, Selector()) == 1


async def test_those_who_wait_when_it_stops_learn_of_it() -> None:
    store = FakeStore()
    async with Running(store) as running:
        store.gate.clear()
        running.cache.put(a_key(), an_entry(Verdict.DENY))
        waiting = asyncio.create_task(running.writer.persist())
        await asyncio.sleep(0.02)
    with pytest.raises(DiskError):
        await waiting


async def test_those_who_give_up_waiting_for_a_disk_that_hangs_leave_nothing_behind() -> None:
    store = FakeStore()
    async with Running(store) as running:
        await until(lambda: running.writer.loaded)
        store.gate.clear()
        for _ in range(20):
            running.cache.put(a_key(), an_entry(Verdict.DENY))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(running.writer.persist(), 0.005)
        assert len(running.writer._waiting) == 0
        store.gate.set()


async def test_a_disk_that_hangs_does_not_keep_it_from_stopping() -> None:
    store, cache = FakeStore(), Cache(Limits())
    cache.put(a_key(), an_entry())
    store.gate.clear()
    with pytest.raises(DiskError):
        await WriteBehind(cache, store).stop(grace=0.02)


# ---- loading


async def test_what_the_disk_remembers_is_loaded_and_is_not_dirty() -> None:
    rows = {a_key(f"room{number}"): an_entry() for number in range(7)}
    store = FakeStore(rows)
    async with Running(store) as running:
        await until(lambda: running.writer.loaded)
        assert dict(running.cache.items()) == rows
        assert not running.cache.dirty


async def test_denies_and_lobbies_are_known_before_the_other_rows_are_read() -> None:
    first = {a_key("board"): an_entry(Verdict.DENY), a_key("lobby"): an_entry(body=LOBBY)}
    store = FakeStore({a_key(f"room{n}"): an_entry() for n in range(9)} | first)
    cache = Cache(Limits())
    writer = WriteBehind(cache, store)
    assert not cache.denies_known
    store.pages = 2  # the page with both, and the one that ends them
    loading = asyncio.create_task(writer.load())
    await writer.denies_read(5.0)
    assert cache.denies_known
    assert not writer.loaded
    assert dict(cache.items()) == first
    store.pages = None
    store.gate.set()
    await loading
    assert len(cache) == 11


async def test_a_start_does_not_wait_for_ever_for_the_denies_of_a_disk_that_hangs() -> None:
    store, cache = FakeStore({a_key(): an_entry(Verdict.DENY)}), Cache(Limits())
    store.gate.clear()
    async with Running(store, cache) as running:
        await running.writer.denies_read(0.01)
        assert not cache.denies_known
        store.gate.set()
        await running.writer.denies_read(5.0)
        assert cache.denies_known


async def test_denies_that_cannot_be_read_stay_unknown_until_they_can() -> None:
    store, cache = FakeStore({a_key(): an_entry(Verdict.DENY)}), Cache(Limits())
    store.broken = True
    writer = WriteBehind(cache, store)
    with pytest.raises(DiskError):
        await writer.load()
    assert not cache.denies_known
    store.broken = False
    await writer.load()
    assert cache.denies_known


async def test_without_a_store_all_denies_are_known() -> None:
    cache = Cache(Limits())
    writer = WriteBehind(cache, None)
    assert cache.denies_known
    await writer.denies_read(0.0)


async def test_what_the_clock_missed_reaches_the_cache_within_a_round() -> None:
    store, cache = FakeStore(), Cache(Limits())
    async with Running(store, cache):
        store.missing = 3600.0
        await until(lambda: cache.missed == 3600.0)


async def test_a_disk_that_cannot_be_read_at_start_is_read_when_it_can() -> None:
    store, cache = FakeStore({a_key(): an_entry()}), Cache(Limits())
    store.broken = True
    writer = WriteBehind(cache, store)
    with pytest.raises(DiskError):
        await writer.load()
    store.broken = False
    await writer.load()
    assert cache.get(a_key()) == an_entry()


async def test_a_miss_during_the_load_is_looked_up_at_once() -> None:
    store, cache = FakeStore({a_key(): an_entry()}), Cache(Limits())
    writer = WriteBehind(cache, store)
    await writer.recall(a_key())
    assert cache.get(a_key()) == an_entry()
    await writer.recall(a_key())
    await writer.load()
    await writer.recall(a_key("unknown"))
    assert store.recalls == 1


async def test_a_disk_that_hangs_holds_up_one_miss_and_no_more() -> None:
    store = FakeStore({a_key(): an_entry()})
    writer = WriteBehind(Cache(Limits()), store, recall_within=0.02)
    store.gate.clear()
    await writer.recall(a_key("a"))
    await writer.recall(a_key("b"))
    assert store.recalls == 1


async def test_what_was_dropped_during_the_load_does_not_come_back_by_it() -> None:
    store, cache = FakeStore({a_key(): an_entry(), a_key("b"): an_entry(), a_key("c"): an_entry()}), Cache(Limits())
    writer = WriteBehind(cache, store)
    cache.drop(a_key("c"))
    await writer.load()
    assert cache.get(a_key("c")) is None
    await writer.stop()
    assert a_key("c") not in store.rows


async def test_a_purge_means_what_has_not_been_loaded_yet_too() -> None:
    store = FakeStore({a_key("standup", f"jid {number}"): an_entry() for number in range(9)} | {a_key("b"): an_entry()})
    async with Running(store) as running:
        store.gate.clear()
        purge = asyncio.create_task(running.writer.purge(5_000.0, Selector(room="standup")))
        await asyncio.sleep(0)
        store.gate.set()
        await purge
        assert [key.room for key, _ in running.cache.items()] == ["b"]
        assert list(store.rows) == [a_key("b")]


async def test_a_purge_is_not_forgotten_while_the_disk_has_not_been_read() -> None:
    store, cache = FakeStore({a_key("standup"): an_entry(), a_key("b"): an_entry()}), Cache(Limits())
    writer = WriteBehind(cache, store)
    for now, room in ((5_000.0, "standup"), (5_000.0 + 2 * Changes.MEMORY, "another")):
        purge = asyncio.create_task(writer.purge(now, Selector(room=room)))
        await asyncio.sleep(0)
        purge.cancel()
        await asyncio.gather(purge, return_exceptions=True)
    await writer.load()
    await writer.stop()
    assert list(store.rows) == [a_key("b")]
    assert [key.room for key, _ in cache.items()] == ["b"]


async def test_after_a_restart_the_allows_of_a_room_with_a_later_deny_are_suspect(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key("cancelled", "a"): an_entry(asked_at=1_000.0)})
        await store.save({a_key("cancelled", "b"): an_entry(Verdict.DENY, asked_at=1_005.0)})
        await store.save({a_key("cancelled", "c"): an_entry(asked_at=1_009.0)})
        await store.save({a_key("well", "a"): an_entry(asked_at=1_000.0)})
    clock.pass_by(10)
    async with decisions(tmp_path, clock) as store:
        cache = Cache(Limits())
        await WriteBehind(cache, store).load()
        before = cache.suspect_before("cancelled", clock.monotonic(), 5.0)
        assert 1_000.0 < 1_005.0 < before < 1_009.0
        assert cache.suspect_before("well", clock.monotonic(), 5.0) == float("-inf")


async def test_a_deny_takes_an_allow_away_for_good(tmp_path: Path) -> None:
    clock, cache = FakeClock(), Cache(Limits())
    async with decisions(tmp_path, clock) as store:
        writer = WriteBehind(cache, store)
        await writer.load()
        cache.put(a_key(), an_entry())
        await writer.stop()
        cache.put(a_key(), an_entry(Verdict.DENY, asked_at=1_001.0))
        await writer.stop()
    async with decisions(tmp_path, clock) as store:
        assert {key: entry.verdict for key, entry in (await loaded(store)).items()} == {a_key(): Verdict.DENY}


async def test_that_guests_are_separate_survives_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    async with decisions(tmp_path, clock) as store:
        cache = Cache(Limits())
        writer = WriteBehind(cache, store)
        await writer.load()
        cache.put(a_key(subject="guest"), an_entry())
        cache.separate_guests(a_key(subject="guest"), clock.monotonic())
        await writer.stop()
    clock.pass_by(1e6)
    async with decisions(tmp_path, clock, boot="boot-2") as store:
        cache = Cache(Limits())
        await WriteBehind(cache, store).load()
        assert cache.guests_are_separate("standup")
        assert cache.get(a_key(subject="guest")) is None


async def test_after_a_boot_with_a_late_wall_clock_an_allow_ages_when_the_clock_is_set(tmp_path: Path) -> None:
    clock, policy = FakeClock(), a_policy()
    async with decisions(tmp_path, clock) as store:
        await store.save({a_key(): an_entry()})
    late = FakeClock(boottime=30.0, unix=clock.unix + 30)  # the machine was off for ten hours
    async with decisions(tmp_path, late, boot="boot-2") as store, Running(store) as running:
        await until(lambda: running.writer.loaded)
        state = look(running.cache, a_key(), policy, late.monotonic(), Permit.OPEN).state
        assert state is Freshness.STALE
        late.unix += 36_000
        await until(lambda: running.cache.missed)
        state = look(running.cache, a_key(), policy, late.monotonic(), Permit.OPEN).state
        assert state is Freshness.EXPIRED


async def test_a_suspicion_means_what_has_not_been_loaded_yet_too_and_is_on_disk() -> None:
    key = a_key()
    store = FakeStore({key: an_entry()})
    async with Running(store) as running:
        store.gate.clear()
        suspicion = asyncio.create_task(running.writer.purge(5_000.0, Selector(room=key.room), Change.SUSPECT))
        await asyncio.sleep(0.01)
        store.gate.set()
        await suspicion
    assert store.rows[key].suspect
