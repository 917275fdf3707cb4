"""What is remembered: answers by key, the rooms' waves of suspicion, and what was purged.

Three LRUs, so that strangers who ask for made-up rooms can only push out other strangers' denies.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache

from sidecar.core.model import Entry, Key, Kind, Lifetimes, Verdict
from sidecar.core.policy import NEVER
from sidecar.decisions.packed_lru import PackedLru


@dataclass(frozen=True, slots=True)
class Limits:
    """The most entries of each kind that are kept in memory."""

    allows: int = 100_000
    denies: int = 20_000
    configs: int = 20_000


@dataclass(frozen=True, slots=True)
class Selector:
    """What an operator wants forgotten; a part that is None fits everything."""

    room: str | None = None
    subject: str | None = None

    def fits(self, key: Key) -> bool:
        """Whether this key is meant. A subject is a bare JID, a user id, or `guest`."""
        if self.room is not None and key.room != self.room:
            return False
        return self.subject is None or (key.subject is not None and named(key.subject, self.subject))


def named(subject: str, name: str) -> bool:
    """Whether an operator who types this name means that subject of a key."""
    kind, _, rest = subject.partition(" ")
    if kind == "jid" or not rest:
        return name in (subject, rest or kind)
    known: Any = json.loads(rest)  # a user id, or a list of whoever it is and the e-mail
    return name == subject or name in map(str, known if kind.endswith("+email") else [known])


@dataclass(slots=True)
class _Suspicion:
    """Allows asked before `before` are suspect since `since`; those before `next_before` will be, once it is time."""

    before: float
    since: float
    next_before: float | None = None


class Cache:
    """Entries by key. Every change of what is on disk is noted in `dirty` (the entry, or None for gone)."""

    PURGE_MEMORY = 60.0
    """Seconds for which a purge is remembered: longer than any question can be under way."""

    def __init__(self, limits: Limits) -> None:
        """Start empty."""
        self.dirty: dict[Key, Entry | None] = {}
        self._by_verdict = {
            Verdict.ALLOW: PackedLru(Verdict.ALLOW, limits.allows, self.dirty),
            Verdict.DENY: PackedLru(Verdict.DENY, limits.denies, self.dirty),
            Verdict.CONFIG: PackedLru(Verdict.CONFIG, limits.configs, self.dirty),
        }
        allows, denies, configs = self._by_verdict.values()
        self._by_kind = {Kind.DECISION: (allows, denies), Kind.CONFIG: (configs,), Kind.EVENT: ()}
        self._suspicions: LRUCache[str, _Suspicion] = LRUCache(limits.denies)
        self._lonely: LRUCache[str, bool] = LRUCache(limits.denies)
        self._purges: deque[tuple[float, Selector]] = deque()

    def __len__(self) -> int:
        """Entries of all kinds."""
        return sum(map(len, self._by_verdict.values()))

    def count(self, verdict: Verdict) -> int:
        """Entries of one kind."""
        return len(self._by_verdict[verdict])

    def get(self, key: Key) -> Entry | None:
        """The entry under a key, however old."""
        for lru in self._by_kind[key.endpoint.kind]:
            entry = lru.get(key)
            if entry is not None:
                return entry
        return None

    def put(self, key: Key, entry: Entry) -> bool:
        """Remember an answer; False if it was asked before a purge that means it.

        Of a deny it is then remembered that it was one, though it answers nobody any more: it takes away an allow that
        was asked after the purge, and keeps out those that are still on their way.
        """
        purged = self._is_purged(key, entry)
        if purged:
            if entry.verdict is not Verdict.DENY:
                return False
            entry = entry._replace(lifetimes=Lifetimes(0, 0, 0))
        home = self._by_verdict[entry.verdict]
        for lru in self._by_kind[key.endpoint.kind]:
            if lru is not home:
                lru.drop(key)
        home.put(key, entry)
        self.dirty[key] = entry
        return not purged

    def restore(self, key: Key, entry: Entry) -> bool:
        """Put back what the disk remembers, unless memory knows better; nothing becomes dirty by it.

        A deny that comes back makes the room's allows suspect that were asked before it, as it did when it was new.
        """
        if entry.verdict is Verdict.DENY:
            self._suspect_again(key.room, entry.settled_at)
        known = key in self.dirty or any(key in lru for lru in self._by_kind[key.endpoint.kind])
        if known or self._is_purged(key, entry):
            return False
        self._by_verdict[entry.verdict].put(key, entry)
        return True

    def restore_all(self, remembered: Iterable[tuple[Key, Entry]]) -> list[Key]:
        """`restore` for many, as there are at start; returns the keys that were not taken."""
        allows, denies, dirty = self._by_verdict[Verdict.ALLOW], self._by_verdict[Verdict.DENY], self.dirty
        refused = []
        for key, entry in remembered:
            if entry.verdict is Verdict.ALLOW and not self._purges and key not in dirty and key not in denies:
                taken = allows.add(key, entry)
            else:
                taken = self.restore(key, entry)
            if not taken:
                refused.append(key)
        return refused

    def _is_purged(self, key: Key, entry: Entry) -> bool:
        return bool(self._purges) and any(
            entry.asked_at <= purged_at and selector.fits(key) for purged_at, selector in self._purges
        )

    def drop(self, key: Key) -> None:
        """Forget one key."""
        for lru in self._by_kind[key.endpoint.kind]:
            lru.drop(key)
        self.dirty[key] = None

    def purge(self, now: float, selector: Selector) -> int:
        """Forget what is meant, and refuse answers to questions asked until now; returns how many entries went."""
        while self._purges and self._purges[0][0] < now - self.PURGE_MEMORY:
            self._purges.popleft()
        self._purges.append((now, selector))
        keys = (key for lru in self._by_verdict.values() for key in lru.keys(selector.room))
        doomed = [key for key in keys if selector.fits(key)]
        for key in doomed:
            self.drop(key)
        return len(doomed)

    def items(self) -> Iterator[tuple[Key, Entry]]:
        """Everything, without touching the order of use."""
        for lru in self._by_verdict.values():
            yield from lru.items()

    def keep_guests_alone(self, shared: Key) -> None:
        """The backend said `private` to a guest: from now on the guests of the room share no answer."""
        self._lonely[shared.room] = True
        self.drop(shared)

    def guests_are_alone(self, room: str) -> bool:
        """Whether the guests of this room are asked about one by one."""
        return room in self._lonely

    def suspect(self, room: str, now: float, every: float) -> None:
        """A definite deny arrived: the room's allows asked before now are suspect.

        At most once per `every` seconds; a deny in between is not lost, its wave starts when the time has come.
        """
        suspicion = self._suspicions.get(room)
        if suspicion is None:
            self._suspicions[room] = _Suspicion(now, now)
        elif now - suspicion.since >= every:
            suspicion.before, suspicion.since, suspicion.next_before = now, now, None
        else:
            suspicion.next_before = now

    def _suspect_again(self, room: str, denied_at: float) -> None:
        suspicion = self._suspicions.get(room)
        if suspicion is None:
            self._suspicions[room] = _Suspicion(denied_at, denied_at)
        else:
            suspicion.before = max(suspicion.before, denied_at)

    def suspect_before(self, room: str, now: float, every: float) -> float:
        """The instant before which the room's allows must have been asked to be suspect now; NEVER: none is."""
        if room not in self._suspicions:
            return NEVER
        suspicion = self._suspicions[room]
        if suspicion.next_before is not None and now - suspicion.since >= every:
            suspicion.before, suspicion.since, suspicion.next_before = suspicion.next_before, now, None
        return suspicion.before
