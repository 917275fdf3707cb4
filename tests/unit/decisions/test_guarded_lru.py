"""Strangers displace only what they brought themselves, and one room under attack displaces its own entries."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sidecar.core.model import Entry, Key, Verdict
from sidecar.decisions.guarded_lru import GuardedLru
from sidecar.decisions.rooms_in_use import _SHARD, RoomsInUse
from tests.unit.builders import a_key, an_entry


class Denies:
    """Denies, the rooms in use, and what was evicted."""

    def __init__(self, most: int = 10, rooms: int = 10) -> None:
        self.dirty: dict[Key, Entry | None] = {}
        self.in_use = RoomsInUse(rooms)
        self.lru = GuardedLru(Verdict.DENY, most, self.dirty, self.in_use)

    def deny(self, room: str, *users: str) -> None:
        for user in users or ("ann",):
            self.lru.put(a_key(room, user), an_entry(Verdict.DENY))

    def flood(self, many: int, room: str | None = None) -> None:
        """Denies of users nobody has heard of, each at a made-up room, or all at one."""
        for number in range(many):
            self.deny(room or f"made-up {number}", f"stranger {number}")

    def has(self, room: str, user: str = "ann") -> bool:
        return a_key(room, user) in self.lru


def test_what_is_evicted_is_marked_as_deleted() -> None:
    denies = Denies(most=2)
    denies.flood(3)
    assert denies.dirty == {a_key("made-up 0", "stranger 0"): None}
    assert len(denies.lru) == 2


@pytest.mark.parametrize("first", ["allow", "deny"])
def test_a_deny_in_a_room_in_use_outlives_a_flood_of_made_up_rooms(first: str) -> None:
    denies = Denies()
    if first == "allow":
        denies.in_use.note_allow("board")
    denies.deny("board", "ann", "bob")
    denies.in_use.note_allow("board")
    denies.flood(1000)
    assert denies.has("board", "ann")
    assert denies.has("board", "bob")
    assert len(denies.lru) == 10
    assert a_key("board", "ann") not in denies.dirty


def test_a_room_under_attack_displaces_its_own_denies_and_no_other_rooms() -> None:
    denies = Denies()
    for room in ("board", "retro", "attacked"):
        denies.in_use.note_allow(room)
    denies.deny("board", "ann", "bob")
    denies.deny("retro")
    denies.flood(1000, "attacked")
    assert denies.has("board", "ann")
    assert denies.has("board", "bob")
    assert denies.has("retro")
    assert [number for number in range(1000) if denies.has("attacked", f"stranger {number}")] == list(range(993, 1000))


def test_of_a_room_the_deny_that_was_used_last_stays() -> None:
    denies = Denies(most=3)
    denies.in_use.note_allow("board")
    denies.deny("board", "ann", "bob", "eve")
    assert denies.lru.get(a_key("board", "ann")) == an_entry(Verdict.DENY)
    denies.deny("board", "dan")
    assert [user for user in ("ann", "bob", "eve", "dan") if denies.has("board", user)] == ["ann", "eve", "dan"]


def test_of_rooms_with_equally_many_the_one_that_was_used_last_stays() -> None:
    denies = Denies(most=3)
    for room in ("board", "retro", "standup", "new"):
        denies.in_use.note_allow(room)
        if room != "new":
            denies.deny(room)
    denies.lru.get(a_key("board", "ann"))
    denies.deny("new")
    assert [room for room in ("board", "retro", "standup", "new") if denies.has(room)] == ["board", "standup", "new"]


def test_a_room_that_is_not_in_use_any_more_gives_way_with_the_strangers() -> None:
    denies = Denies(rooms=2)
    denies.in_use.note_allow("left")
    denies.deny("left")
    denies.in_use.note_allow("board")
    denies.deny("board")
    denies.in_use.note_allow("retro")
    assert "left" not in denies.in_use
    denies.flood(10)
    assert not denies.has("left")
    assert denies.has("board")


def test_a_room_in_which_somebody_is_allowed_again_stays_in_use() -> None:
    rooms = RoomsInUse(2)
    for room in ("first", "second", "first", "third"):
        rooms.note_allow(room)
    assert [room for room in ("first", "second", "third") if room in rooms] == ["first", "third"]


def test_there_are_never_more_rooms_in_use_than_may_be_though_they_are_in_shards() -> None:
    rooms, left = RoomsInUse(_SHARD + 1), list[str]()
    rooms.on_leave.append(left.append)
    for number in range(_SHARD + 100):
        rooms.note_allow(f"room {number}")
    assert len(left) == 99
    assert not any(room in rooms for room in left)


class GuardedMachine(RuleBasedStateMachine):
    """Against a plain dictionary: what is not evicted is there, and what is kept of rooms in use is never evicted while
    there is anything else."""

    MOST = 6

    def __init__(self) -> None:
        super().__init__()
        self.denies = Denies(self.MOST, rooms=2)
        self.model: dict[Key, Entry] = {}
        self.clock = count()

    rooms = st.sampled_from("abcde")
    users = st.sampled_from("uvw")

    @rule(room=rooms)
    def somebody_is_allowed(self, room: str) -> None:
        self.denies.in_use.note_allow(room)

    @rule(room=rooms, user=users)
    def somebody_is_denied(self, room: str, user: str) -> None:
        key, entry = a_key(room, user), an_entry(Verdict.DENY, asked_at=float(next(self.clock)))
        in_use, full = self.denies.in_use, len(self.model) == self.MOST and key not in self.model
        others = [each for each in self.model if each.room not in in_use]
        largest = max(sum(each.room == name for each in self.model) for name in "abcde")
        sizes = {name: sum(each.room == name for each in self.model) for name in "abcde"}
        self.denies.dirty.clear()
        self.denies.lru.put(key, entry)
        self.model[key] = entry
        evicted = list(self.denies.dirty)
        assert len(evicted) == full
        for each in evicted:
            del self.model[each]
            assert each in others or (not others and sizes[each.room] == largest)

    @rule(room=rooms, user=users)
    def somebody_is_dropped(self, room: str, user: str) -> None:
        self.denies.lru.drop(a_key(room, user))
        self.model.pop(a_key(room, user), None)

    @rule(room=rooms, user=users)
    def somebody_asks_again(self, room: str, user: str) -> None:
        assert self.denies.lru.get(a_key(room, user)) == self.model.get(a_key(room, user))

    @invariant()
    def it_holds_what_it_should(self) -> None:
        lru = self.denies.lru
        assert dict(lru.items()) == self.model
        assert sorted(lru.keys()) == sorted(self.model)
        assert len(lru) == len(self.model)
        assert sorted(key for key in lru.keys("a") if key.room == "a") == sorted(k for k in self.model if k.room == "a")


TestGuarded = GuardedMachine.TestCase
TestGuarded.settings = settings(max_examples=100, stateful_step_count=50)
