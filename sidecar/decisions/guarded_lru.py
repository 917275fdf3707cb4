"""An LRU that strangers cannot empty: entries of rooms that are not in use are evicted first.

Anybody can be denied in as many made-up rooms as he likes, or ask for their configs. These entries fill only the places
that rooms in use leave free. Among rooms in use, the room with the most entries gives way, so one that is attacked
displaces its own entries.

    put -> _others (no room in use) | _kept (by room)
    evict -> the oldest of _others, unless its room has come into use; then the oldest of the largest room in _kept
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.model import Entry, Key, Verdict
from sidecar.decisions.packed_lru import PackedLru, key_of, label_of, pack, room_of, unpack
from sidecar.decisions.rooms_in_use import RoomsInUse


class GuardedLru:
    """Entries of one verdict by key. An entry that is evicted is marked as deleted in `dirty`."""

    def __init__(self, verdict: Verdict, maxsize: int, dirty: dict[Key, Entry | None], in_use: RoomsInUse) -> None:
        """Start empty."""
        self._verdict = verdict
        self._maxsize = maxsize
        self._dirty = dirty
        self._in_use = in_use
        self._others = PackedLru(verdict, maxsize, dirty)
        self._kept = _ByRoom()
        in_use.on_leave.append(self._room_left)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._others) + len(self._kept)

    def __contains__(self, key: Key) -> bool:
        """Whether there is an entry, which does not count as a use of it."""
        return key in self._others or self._kept.has(key.room, label_of(key))

    def get(self, key: Key) -> Entry | None:
        """The entry; it is now the most recently used."""
        return self.find(key.room, label_of(key))

    def find(self, room: str, label: str) -> Entry | None:
        """The same by label, for one who looks in several places."""
        packed = self._kept.get(room, label)
        return self._others.find(room, label) if packed is None else unpack(self._verdict, packed)

    def put(self, key: Key, entry: Entry) -> None:
        """Remember an entry, and evict another one if all places are taken."""
        self.drop(key)
        if len(self) >= self._maxsize:
            self._evict()
        if key.room in self._in_use:
            self._kept.put(key.room, label_of(key), pack(entry))
        else:
            self._others.put(key, entry)

    def drop(self, key: Key) -> None:
        """Forget an entry, if it is there."""
        self._others.drop(key)
        self._kept.drop(key.room, label_of(key))

    def keys(self, room: str | None = None) -> Iterator[Key]:
        """All keys, or those of one room, without touching the order of use."""
        yield from self._others.keys(room)
        yield from (key_of(self._verdict, label) for label in self._kept.labels(room))

    def items(self) -> Iterator[tuple[Key, Entry]]:
        """Everything, without touching the order of use."""
        yield from self._others.items()
        for label, packed in self._kept.items():
            yield key_of(self._verdict, label), unpack(self._verdict, packed)

    def _evict(self) -> None:
        while len(self._others):
            label, packed = self._others.pop_oldest()
            room = room_of(label)
            if room not in self._in_use:
                break
            self._kept.put(room, label, packed)  # the room has come into use since
        else:
            label = self._kept.pop_of_largest()
        self._dirty[key_of(self._verdict, label)] = None

    def _room_left(self, room: str) -> None:
        for label, packed in self._kept.pop_room(room).items():
            self._others.put_packed(label, packed)


class _ByRoom:
    """Packed entries by room, each room in order of use, and the rooms by how many entries they have."""

    def __init__(self) -> None:
        self._rooms: dict[str, dict[str, bytes]] = {}
        self._by_size: dict[int, dict[str, None]] = {}
        self._largest = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def has(self, room: str, label: str) -> bool:
        return label in self._rooms.get(room, ())

    def get(self, room: str, label: str) -> bytes | None:
        entries = self._rooms.get(room)
        if entries is None or label not in entries:
            return None
        rooms = self._by_size[len(entries)]
        rooms[room] = rooms.pop(room)
        packed = entries[label] = entries.pop(label)
        return packed

    def put(self, room: str, label: str, packed: bytes) -> None:
        entries = self._rooms.setdefault(room, {})
        before = len(entries)
        entries.pop(label, None)
        entries[label] = packed
        self._resize(room, before, len(entries))

    def drop(self, room: str, label: str) -> None:
        if self.has(room, label):
            entries = self._rooms[room]
            del entries[label]
            self._resize(room, len(entries) + 1, len(entries))

    def pop_of_largest(self) -> str:
        """Take out the least recently used entry of the room with the most; of rooms of one size, of the least recently
        used."""
        room = next(iter(self._by_size[self._largest]))
        label = next(iter(self._rooms[room]))
        self.drop(room, label)
        return label

    def pop_room(self, room: str) -> dict[str, bytes]:
        entries = self._rooms.get(room, {})
        self._resize(room, len(entries), 0)
        return entries

    def labels(self, room: str | None) -> Iterator[str]:
        for entries in self._rooms.values() if room is None else (self._rooms.get(room, {}),):
            yield from entries

    def items(self) -> Iterator[tuple[str, bytes]]:
        for entries in self._rooms.values():
            yield from entries.items()

    def _resize(self, room: str, before: int, after: int) -> None:
        self._count += after - before
        if before:
            rooms = self._by_size[before]
            del rooms[room]
            if not rooms:
                del self._by_size[before]
        if after:
            self._by_size.setdefault(after, {})[room] = None
            self._largest = max(self._largest, after)
        else:
            self._rooms.pop(room, None)
        while self._largest and self._largest not in self._by_size:
            self._largest -= 1
