"""The rooms in which somebody was allowed. A stranger who asks about made-up rooms cannot add one.

What is remembered about these rooms (denies, suspicion, configs) is kept when other rooms must give way.
"""

from __future__ import annotations

from collections.abc import Callable

from cachetools import LRUCache

_SHARD = 20_000
"""Rooms in one shard: a large dictionary that grows delays joins."""


class RoomsInUse:
    """Names of rooms; those whose last allow is the longest ago give way."""

    def __init__(self, maxsize: int) -> None:
        """Start empty."""
        self.on_enter: list[Callable[[str], None]] = []
        self.on_leave: list[Callable[[str], None]] = []
        self._maxsize = maxsize
        self._count = 0
        self._shards: list[LRUCache[str, None]] = [LRUCache(maxsize) for _ in range(1 + (maxsize - 1) // _SHARD)]

    def __contains__(self, room: str) -> bool:
        """Whether somebody was allowed in this room."""
        return room in self._shards[hash(room) % len(self._shards)]

    def note_allow(self, room: str) -> None:
        """Somebody is allowed in this room."""
        shard = self._shards[hash(room) % len(self._shards)]
        if room in shard:
            shard[room] = None  # the most recently used now
            return
        if self._count < self._maxsize:
            self._count += 1
        else:
            left, _ = max(self._shards, key=len).popitem()
            for leaves in self.on_leave:
                leaves(left)
        shard[room] = None
        for enters in self.on_enter:
            enters(room)
