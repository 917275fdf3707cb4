"""One bounded kind of remembered answers, least recently used first to go, packed.

A key is one string and an entry one `bytes`: a third of the memory of the objects they are made into when asked for,
and nothing that the garbage collector would have to look through, which with a million entries takes it long enough
to be felt by those who want to join.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from cachetools import Cache, LRUCache

from sidecar.core.model import Endpoint, Entry, Key, Lifetimes, Verdict

_HEAD = struct.Struct("6d")
"""asked_at, settled_at, spread, and the three lifetimes; the body follows."""


class Shelf:
    """Entries of one verdict by key. `dirty` is told what falls off the end."""

    def __init__(self, verdict: Verdict, maxsize: int, dirty: dict[Key, Entry | None]) -> None:
        """Start empty."""
        self._verdict = verdict
        self._endpoint = Endpoint.ROOM_CREATED if verdict is Verdict.CONFIG else Endpoint.VALIDATE_ACCESS
        self._maxsize = maxsize
        self._packed: LRUCache[str, bytes] = LRUCache(maxsize)
        self._dirty = dirty

    def __len__(self) -> int:
        """How many there are."""
        return len(self._packed)

    def __contains__(self, key: Key) -> bool:
        """Whether there is an entry, which does not count as a use of it."""
        return _label(key) in self._packed

    def get(self, key: Key) -> Entry | None:
        """The entry; it is the last now that will go."""
        label = _label(key)
        if label not in self._packed:
            return None
        return self._unpack(self._packed[label])

    def put(self, key: Key, entry: Entry) -> None:
        """Remember an entry; the one that was not used for longest may have to go."""
        label = _label(key)
        if len(self._packed) >= self._maxsize and label not in self._packed:
            gone, _ = self._packed.popitem()
            self._dirty[self._key(gone)] = None
        limits = entry.lifetimes
        head = _HEAD.pack(entry.asked_at, entry.settled_at, entry.spread, *limits)
        self._packed[label] = head + entry.body

    def drop(self, key: Key) -> None:
        """Forget an entry, if it is there."""
        self._packed.pop(_label(key), None)

    def keys(self, room: str | None = None) -> Iterator[Key]:
        """All keys, or those of one room; this is no use of them either."""
        mark = "" if room is None else _mark(room)
        return (self._key(label) for label in self._packed if mark in label)

    def items(self) -> Iterator[tuple[Key, Entry]]:
        """Everything, without touching the order of use."""
        for label in self._packed:
            yield self._key(label), self._unpack(Cache.__getitem__(self._packed, label))

    def _unpack(self, packed: bytes) -> Entry:
        asked_at, settled_at, spread, *limits = _HEAD.unpack_from(packed)
        return Entry(self._verdict, packed[_HEAD.size :], asked_at, settled_at, Lifetimes(*limits), spread)

    def _key(self, label: str) -> Key:
        room_jid, meeting_id, token, length, rest = label.split("\0", 4)
        room, subject = rest[: int(length)], rest[int(length) :]
        return Key(self._endpoint, room, room_jid or None, meeting_id or None, subject or None, token or None)


def _label(key: Key) -> str:
    """A key as one string, and no two as the same: of its parts only room and subject can hold a NUL, and none of the
    others is ever empty."""
    _, room, room_jid, meeting_id, subject, token = key
    return f"{room_jid or ''}\0{meeting_id or ''}\0{token or ''}{_mark(room)}{subject or ''}"


def _mark(room: str) -> str:
    return f"\0{len(room)}\0{room}"
