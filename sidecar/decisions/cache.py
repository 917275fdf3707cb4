"""The cache: entries by key, which entries a later deny makes suspect, and what was purged or revoked.

Allows, denies and configs have an LRU each, and so have the allows that lead to the lobby. Users who ask for made-up
rooms cannot evict the allows of others, and of the rest only what belongs to rooms in which nobody was allowed
(rooms_in_use.py, guarded_lru.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from sidecar.core.contact import Contact
from sidecar.core.decision_body import requires_lobby, restricts
from sidecar.core.model import SUSPECT, Endpoint, Entry, Key, Kind, Lifetimes, Verdict
from sidecar.core.policy import TOMBSTONE, revoked
from sidecar.core.selection import Change, Selector, is_mark, marks
from sidecar.decisions.changes import Changes
from sidecar.decisions.guarded_lru import GuardedLru
from sidecar.decisions.packed_lru import PackedLru, label_of
from sidecar.decisions.rooms_in_use import RoomsInUse
from sidecar.decisions.suspicion import Suspicions

BOOTED = 1.0
"""Instants are seconds since this boot of the machine; what was asked before this one was asked before the boot. It is
not zero because of rounding, and nobody asks within the first second."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most entries of each kind in memory; beside `allows`, `denies` allows that lead to the lobby."""

    allows: int = 100_000
    denies: int = 20_000
    configs: int = 20_000


class Dirty(dict[Key, Entry | None]):
    """Rows that have changed and are not on disk yet: the entry, or None for a deleted one."""

    on_change: Callable[[], None] | None = None
    """Called for each row."""

    def __setitem__(self, key: Key, row: Entry | None) -> None:
        """A row has changed."""
        super().__setitem__(key, row)
        if self.on_change is not None:
            self.on_change()


class Cache:
    """Entries by key. What has changed and is not on disk yet is in `dirty`."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self.dirty = Dirty()
        self.denies_known = True
        """False: the disk may remember denies that are not here. Then no allow counts for more than a suspect one."""
        self.lacks_denies = False
        """True: denies were lost with a damaged file. Then who is unknown may have been denied."""
        self.missed = 0.0
        """Seconds by which entries from before this boot of the machine are older than their instants say."""
        self._in_use = RoomsInUse(limits.allows)
        self._allows = PackedLru(Verdict.ALLOW, limits.allows, self.dirty)
        self._denies = GuardedLru(Verdict.DENY, limits.denies, self.dirty, self._in_use)
        self._in_lobby = GuardedLru(Verdict.ALLOW, limits.denies, self.dirty, self._in_use)
        self._private = GuardedLru(Verdict.PRIVATE, limits.denies, self.dirty, self._in_use)
        configs = GuardedLru(Verdict.CONFIG, limits.configs, self.dirty, self._in_use)
        self._by_verdict: dict[Verdict, PackedLru | GuardedLru] = {
            Verdict.ALLOW: self._allows,
            Verdict.DENY: self._denies,
            Verdict.CONFIG: configs,
            Verdict.PRIVATE: self._private,
        }
        self._by_kind: dict[Kind, tuple[PackedLru | GuardedLru, ...]] = {
            Kind.DECISION: (self._allows, self._denies, self._in_lobby, self._private),
            Kind.CONFIG: (configs,),
            Kind.EVENT: (),
        }
        self._all = tuple(lru for lrus in self._by_kind.values() for lru in lrus)
        self._with_marks: set[str] = set()
        """The rooms of users who were put out, also of some who are forgotten."""
        self._most_denies = limits.denies
        self._suspicions = Suspicions(self._in_use, limits.denies)
        self.changes = Changes()
        self.contact: Contact | None = None
        """The contact with other sidecars, if they share a memory."""

    def __len__(self) -> int:
        """Entries of all kinds."""
        return sum(map(len, self._all))

    def count(self, verdict: Verdict) -> int:
        """Entries of one kind."""
        return len(self._by_verdict[verdict]) + (len(self._in_lobby) if verdict is Verdict.ALLOW else 0)

    def get(self, key: Key) -> Entry | None:
        """The entry under a key, however old."""
        room, label = key.room, label_of(key)
        for lru in self._by_kind[key.endpoint.kind]:
            entry = lru.find(room, label)
            if entry is not None:
                return entry if entry.asked_at > BOOTED else self._aged(entry)
        return self._put_out(key) if room in self._with_marks and key.endpoint.kind is Kind.DECISION else None

    def _put_out(self, key: Key) -> Entry | None:
        """What is remembered about a user who was put out, and about whom nothing was asked since."""
        known = [self._aged(entry) for mark in marks(key) if (entry := self._denies.get(mark)) is not None]
        return max(known, key=lambda entry: entry.asked_at, default=None)

    def _aged(self, entry: Entry) -> Entry:
        """An entry from before this boot, at its age as it is known now."""
        if entry.asked_at > BOOTED or not self.missed:
            return entry
        return entry._replace(asked_at=entry.asked_at - self.missed, settled_at=entry.settled_at - self.missed)

    def put(self, key: Key, entry: Entry) -> bool:
        """Remember an answer; False if it was asked before a purge that fits it.

        A deny that was asked before the purge is kept as an expired entry, and so is an allow that leads to the lobby.
        It is no answer, but it replaces an allow that was asked after the purge, and allows that were asked before it
        was answered cannot replace it.
        """
        change = self.changes.of(key, entry)
        purged = change is Change.DROP or change is Change.REVOKE
        if purged:
            if not restricts(entry.verdict, entry.body) or (change is Change.REVOKE and key in self._denies):
                return False
            entry = entry._replace(lifetimes=Lifetimes(0, 0, 0))
        elif change is Change.SUSPECT:
            entry = entry._replace(spread=SUSPECT)
        target = self._place_of(entry)
        for lru in self._by_kind[key.endpoint.kind]:
            if lru is not target:
                lru.drop(key)
        if target is self._allows:
            self._let_in_again(key, entry.asked_at)
        self._place(key, entry, target)
        self.dirty[key] = entry
        return not purged

    def _place_of(self, entry: Entry) -> PackedLru | GuardedLru:
        if entry.verdict is Verdict.ALLOW and requires_lobby(entry.body):
            return self._in_lobby
        return self._by_verdict[entry.verdict]

    def _place(self, key: Key, entry: Entry, target: PackedLru | GuardedLru) -> None:
        if target is self._allows:
            self._in_use.note_allow(key.room)
        elif is_mark(key):
            self._with_marks.add(key.room)
            if len(self._with_marks) > 2 * self._most_denies:  # most of them have been evicted since
                self._with_marks = {key.room, *(each.room for each, _ in self._denies.items() if is_mark(each))}
        target.put(key, entry)

    def restore(self, key: Key, entry: Entry) -> bool:
        """Take an entry from disk, unless the cache has a newer change of it; only a new suspicion makes it dirty.

        A deny makes the room's older allows suspect again, as it did when it was new.
        """
        if entry.verdict is Verdict.DENY:
            self._suspicions.denied_before_start(key.room, entry.settled_at)
        known = key in self.dirty or any(key in lru for lru in self._by_kind[key.endpoint.kind])
        change = self.changes.of(key, entry)
        if change is Change.REVOKE and not known:
            self.put(key, Entry(Verdict.DENY, TOMBSTONE, entry.asked_at, entry.settled_at, Lifetimes(0, 0, 0)))
        if known or change in (Change.DROP, Change.REVOKE):
            return False
        if change is Change.SUSPECT:
            entry = self.dirty[key] = entry._replace(spread=SUSPECT)
        target = self._place_of(entry)
        self._place(key, entry, target)
        return True

    def restore_all(self, remembered: Iterable[tuple[Key, Entry]]) -> list[Key]:
        """`restore` for many entries, as at start; returns the keys that were not taken."""
        allows, denies, in_lobby, dirty = self._allows, self._denies, self._in_lobby, self.dirty
        refused = []
        for key, entry in remembered:
            if (
                entry.verdict is Verdict.ALLOW
                and not self.changes
                and key not in dirty
                and key not in denies
                and not (len(in_lobby) and key in in_lobby)
                and not requires_lobby(entry.body)
            ):
                taken = allows.add(key, entry)
                self._in_use.note_allow(key.room)
            else:
                taken = self.restore(key, entry)
            if not taken:
                refused.append(key)
        return refused

    def drop(self, key: Key) -> None:
        """Forget one key."""
        for lru in self._by_kind[key.endpoint.kind]:
            lru.drop(key)
        self.dirty[key] = None

    def purge(self, now: float, selector: Selector, change: Change = Change.DROP) -> int:
        """Change what is selected and was asked for until then, also what is still under way; returns how many entries
        were changed. `now` may be past, where another sidecar has made the change."""
        self.changes.add(now, selector, change)
        meant = (self._allows, self._in_lobby) if change is Change.REVOKE else self._all
        fitting = [key for lru in meant for key in lru.keys(selector.room) if selector.fits(key)]
        keys = [key for key in fitting if (entry := self.get(key)) is not None and entry.asked_at <= now]
        for key in keys:
            self._change(key, now, change)
        if change is Change.REVOKE and (mark := selector.mark) is not None and len(keys) == len(fitting):
            self._put_mark(mark, revoked(now))
        return len(keys)

    def _put_mark(self, mark: Key, entry: Entry) -> None:
        """Nobody knows what the user will be asked about under. An older order that is heard later changes nothing."""
        known = self._denies.get(mark)
        is_newer = known is None or self._aged(known).asked_at < entry.asked_at
        if is_newer and self.changes.of(mark, entry) is not Change.DROP:
            self.put(mark, entry)

    def _let_in_again(self, key: Key, asked_at: float) -> None:
        for mark in marks(key) if key.room in self._with_marks else ():
            if (entry := self._denies.get(mark)) is not None and self._aged(entry).asked_at < asked_at:
                self.drop(mark)

    def _change(self, key: Key, now: float, change: Change) -> None:
        match change:
            case Change.DROP:
                self.drop(key)
            case Change.REVOKE:
                self.put(key, revoked(now))
            case Change.SUSPECT:
                entry = self.get(key)
                if entry is not None:  # `put` sees the change
                    self.put(key, entry)

    def outdates_config(self, decision: Key, asked_at: float) -> bool:
        """Whether the config of the room is newer, or was taken away later, than one that comes along with a decision
        that was asked at this instant."""
        key = decision.of_config
        config = self.get(key)
        return (config is not None and config.asked_at > asked_at) or self.changes.outdate(key, asked_at)

    def items(self) -> Iterator[tuple[Key, Entry]]:
        """Everything, without touching the order of use."""
        for lru in self._all:
            for key, entry in lru.items():
                yield key, self._aged(entry)

    def keys(self, room: str) -> Iterator[Key]:
        """The keys of a room that have an entry."""
        for lru in self._all:
            yield from lru.keys(room)

    def separate_guests(self, shared: Key, asked_at: float) -> None:
        """The backend said `private` for a guest: from now on the guests of the room share no answer.

        A deny for all of them is kept: it is no answer any more, but without the backend it keeps out who is unknown.
        """
        entry = self.get(shared)
        if entry is None or entry.verdict is not Verdict.DENY:
            self.drop(shared)
        self.put(_guests_of(shared.room), Entry(Verdict.PRIVATE, b"", asked_at, asked_at, Lifetimes(0, 0, 0)))

    def guests_are_separate(self, room: str) -> bool:
        """Whether the backend is asked about each guest of this room."""
        return _guests_of(room) in self._private

    def suspect(self, room: str, now: float, every: float) -> None:
        """A definite deny arrived: the room's allows that were asked before now are suspect, see `Suspicions`."""
        self._suspicions.denied(room, now, every)

    def suspect_before(self, room: str, now: float, every: float) -> float:
        """Allows of the room that were asked before this instant are suspect now; NEVER: none is."""
        before = self._suspicions.before(room, now, every)
        return before if self.contact is None else max(before, self.contact.suspect_before(now))


def _guests_of(room: str) -> Key:
    """The key under which it is remembered that a room's guests are asked about one by one. It has no subject, so it is
    no user's."""
    return Key(Endpoint.VALIDATE_ACCESS, room)
