"""What other sidecars have said, carried out on the cache of this one.

A deny names no user. Which key it is about is found by the digests of the keys that are known here: those of the
room that are in the cache, and those that the backend is being asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sidecar.core.decision_body import counts_more, requires_lobby, restricts, strictness
from sidecar.core.model import GUEST, Entry, Key, Verdict
from sidecar.core.sealed import Forged, FromAnother, Kept, Sealer
from sidecar.core.selection import Change, Selector
from sidecar.decisions.cache import Cache
from sidecar.decisions.unknown_keys import UnknownKeys

MOST_UNREAD = 10_000
"""Rooms of which something was heard while the disk was being read."""


class Others:
    """Carries out messages. Nothing here waits."""

    def __init__(self, cache: Cache, sealer: Sealer, asked_about: Callable[[str], Iterable[Key]]) -> None:
        """`asked_about` gives the keys of a room that the backend is being asked about."""
        self._cache = cache
        self._sealer = sealer
        self._asked_about = asked_about
        self._unknown = UnknownKeys()
        self._unread: set[str] = set()
        """Rooms of which something was heard while the disk was being read: it may have keys that were not known."""

    def restricted(
        self, document: dict[str, Any], attached: bytes, at_ms: int, now_ms: int, now: float, every: float
    ) -> None:
        """Somebody was denied, or sent to the lobby, on another shard, at `at_ms` on the engine's clock, which is at
        `now_ms` now. `every`: see `Cache.suspect`. Raises Forged."""
        room, name = _text(document, "room"), _text(document, "key")
        kept = self._sealer.unpack(name, attached)
        settled_at = now - max(0, now_ms - at_ms) / 1000
        asked_at = min(settled_at, now - max(0, now_ms - kept.asked_ms) / 1000)
        keys = list(self._keys(room, name))
        if not keys and kept.verdict is not Verdict.PRIVATE:
            self._unknown.put(name, self._entry(kept, asked_at, settled_at), now)
            if self._cache.changes.loading and len(self._unread) < MOST_UNREAD:
                self._unread.add(room)
        for key in keys:
            if kept.verdict is Verdict.PRIVATE:
                if key.subject == GUEST:
                    self._cache.separate_guests(key, asked_at)
                continue
            entry = self._entry(kept, asked_at, settled_at)
            current = self._cache.get(key)
            if current is None or not counts_more(current, entry):
                self._cache.put(key, entry)
        if kept.verdict is Verdict.DENY:
            self._cache.suspect(room, now, every)

    def _entry(self, kept: Kept, asked_at: float, settled_at: float) -> Entry:
        verdict = Verdict.ALLOW if kept.verdict is Verdict.ALLOW and requires_lobby(kept.body) else Verdict.DENY
        return Entry(verdict, kept.body, asked_at, settled_at, kept.lifetimes)

    def recall(self, key: Key) -> None:
        """Bring what was heard about a key, before it was known here, into the cache."""
        entry = self._unknown.pop(key, self._sealer.key(key)) if self._unknown else None
        if entry is not None:
            take(self._cache, key, entry)

    def after_loading(self) -> None:
        """Once all is read from disk: what was heard meanwhile takes the place of what was read."""
        if self._unread and not self._cache.changes.loading:
            for key in [key for room in self._unread for key in self._cache.keys(room)]:
                self.recall(key)
            self._unread.clear()

    def dropped(self, selector: Selector, at: float, now: float) -> None:
        """This was purged as of an instant."""
        self._unknown.dropped(selector, at, now)

    def change_of(self, document: dict[str, Any]) -> tuple[Selector, Change]:
        """What another sidecar takes away; raises Forged."""
        try:
            change = Change[document["change"]]
        except (KeyError, TypeError):
            raise Forged("a change that cannot be read") from None
        return FromAnother.of(document, self._sealer), change

    def _keys(self, room: str, name: str) -> Iterator[Key]:
        for key in {*self._cache.keys(room), *self._asked_about(room)}:
            if self._sealer.key(key) == name:
                yield key


def take(cache: Cache, key: Key, entry: Entry) -> None:
    """Put what the shared memory has for a key into the cache, unless that knows something newer."""
    if entry.verdict is Verdict.PRIVATE:
        if key.subject == GUEST:
            cache.separate_guests(key, entry.asked_at)
        return
    current = cache.get(key)
    if current is not None:
        if entry.suspect and restricts(current.verdict, current.body) and strictness(entry) <= strictness(current):
            return  # the times may be of another clock
        if not counts_more(entry, current):
            return
    cache.put(key, entry)


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise Forged(f"a message without {name}")
    return value
