"""An LRU of entries of one verdict, packed.

A key is one string and an entry one `bytes`. That is half the memory of the objects they are unpacked to, and the
garbage collector does not have to go through it: with a million entries that would delay joins noticeably. A large
dictionary that grows delays them too, so a large LRU is made of shards.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator

from sidecar.core.model import Entry, Key, Lifetimes, Verdict

_SHARD = 20_000
"""Entries in one shard; to grow it takes a few milliseconds (measured: 200 ms for one of 700,000)."""

_HEAD = struct.Struct("6d")
"""asked_at, settled_at, spread, and the three lifetimes; the body follows."""


class PackedLru:
    """Entries of one verdict by key. An entry that is evicted is marked as deleted in `dirty`."""

    def __init__(self, verdict: Verdict, maxsize: int, dirty: dict[Key, Entry | None]) -> None:
        """Start empty."""
        self._verdict = verdict
        self._maxsize = maxsize
        self._count = 0
        self._shards: list[OrderedDict[str, bytes]] = [OrderedDict() for _ in range(1 + (maxsize - 1) // _SHARD)]
        """Each in the order of use."""
        self._dirty = dirty

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __contains__(self, key: Key) -> bool:
        """Whether there is an entry, which does not count as a use of it."""
        label = label_of(key)
        return label in self._shard(label)

    def get(self, key: Key) -> Entry | None:
        """The entry; it is now the most recently used of its shard."""
        return self.find(key.room, label_of(key))

    def find(self, room: str, label: str) -> Entry | None:
        """The same by label, for one who looks in several places."""
        shard = self._shards[hash(label) % len(self._shards)]
        packed = shard.get(label)
        if packed is None:
            return None
        shard.move_to_end(label)
        return unpack(self._verdict, packed)

    def put(self, key: Key, entry: Entry) -> None:
        """Remember an entry. When all places are taken, the least recently used entry of the fullest shard is
        evicted."""
        label = label_of(key)
        shard = self._shard(label)
        if label in shard:
            shard.move_to_end(label)
        else:
            self._reserve_place()
        shard[label] = pack(entry)

    def add(self, key: Key, entry: Entry) -> bool:
        """Remember an entry if there is none yet."""
        label = label_of(key)
        shard = self._shard(label)
        if label in shard:
            return False
        self._reserve_place()
        shard[label] = pack(entry)
        return True

    def _reserve_place(self) -> None:
        if self._count < self._maxsize:
            self._count += 1
            return
        evicted, _ = max(self._shards, key=len).popitem(last=False)
        self._dirty[key_of(self._verdict, evicted)] = None

    def pop_oldest(self) -> tuple[str, bytes]:
        """Take out the least recently used entry of the fullest shard: its label, and the entry, packed."""
        self._count -= 1
        return max(self._shards, key=len).popitem(last=False)

    def put_packed(self, label: str, packed: bytes) -> None:
        """Put in what was taken out elsewhere; the caller has made sure that there is a place."""
        self._count += 1
        self._shard(label)[label] = packed

    def drop(self, key: Key) -> None:
        """Forget an entry, if it is there."""
        label = label_of(key)
        if self._shard(label).pop(label, None) is not None:
            self._count -= 1

    def keys(self, room: str | None = None) -> Iterator[Key]:
        """All keys, or those of one room, without touching the order of use."""
        mark = "" if room is None else _mark(room)
        return (key_of(self._verdict, label) for shard in self._shards for label in shard if mark in label)

    def items(self) -> Iterator[tuple[Key, Entry]]:
        """Everything, without touching the order of use."""
        for shard in self._shards:
            for label, packed in shard.items():
                yield key_of(self._verdict, label), unpack(self._verdict, packed)

    def _shard(self, label: str) -> OrderedDict[str, bytes]:
        return self._shards[hash(label) % len(self._shards)]


def unpack(verdict: Verdict, packed: bytes) -> Entry:
    """The entry that was packed."""
    asked_at, settled_at, spread, *limits = _HEAD.unpack_from(packed)
    return Entry(verdict, packed[_HEAD.size :], asked_at, settled_at, Lifetimes(*limits), spread)


def key_of(verdict: Verdict, label: str) -> Key:
    """The key of an entry with this verdict."""
    room_jid, meeting_id, token, length, rest = label.split("\0", 4)
    room, subject = rest[: int(length)], rest[int(length) :]
    return Key(verdict.endpoint, room, room_jid or None, meeting_id or None, subject or None, token or None)


def room_of(label: str) -> str:
    """The room in a label."""
    _, _, _, length, rest = label.split("\0", 4)
    return rest[: int(length)]


def pack(entry: Entry) -> bytes:
    """An entry without its verdict."""
    return _HEAD.pack(entry.asked_at, entry.settled_at, entry.spread, *entry.lifetimes) + entry.body


def label_of(key: Key) -> str:
    """A key as one string, a different one for each key: only room and subject can hold a NUL, and no other part is
    ever an empty text."""
    _, room, room_jid, meeting_id, subject, token = key
    return f"{room_jid or ''}\0{meeting_id or ''}\0{token or ''}{_mark(room)}{subject or ''}"


def _mark(room: str) -> str:
    return f"\0{len(room)}\0{room}"
