"""The changes of the last minute: what operators and orders have taken away from memory.

A change also means the answers that are still under way: one that was asked before it must not bring back what the
change took away.
"""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.model import Entry, Key, Verdict
from sidecar.core.selection import Change, Selector


class Changes:
    """The latest changes, each with the instant at which it was made."""

    MEMORY = 60.0
    """Seconds for which a change is remembered: longer than any call can be under way."""

    def __init__(self) -> None:
        """None yet."""
        self.loading = False
        """True: entries are still being read from disk. Until they are, all changes are remembered."""
        self._made_at: dict[tuple[Selector, Change], float] = {}
        self._by_room: dict[str | None, dict[tuple[Selector, Change], float]] = {}

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._made_at)

    def add(self, now: float, selector: Selector, change: Change) -> None:
        """Remember one. The same change, made again, takes the place of the earlier one."""
        made = selector, change
        now = max(now, self._made_at.pop(made, now))
        self._made_at[made] = now
        self._by_room.setdefault(selector.room, {})[made] = now
        while not self.loading and next(iter(self._made_at.values())) < now - self.MEMORY:
            self._forget(next(iter(self._made_at)))

    def of(self, key: Key, entry: Entry) -> Change | None:
        """What is to happen to an answer that arrives now. To drop it goes before all else."""
        meant = {
            change
            for change in self._since(key, entry.asked_at)
            if change is not Change.REVOKE or entry.verdict is Verdict.ALLOW
        }
        return next((change for change in (Change.DROP, Change.REVOKE, Change.SUSPECT) if change in meant), None)

    def outdate(self, key: Key, asked_at: float) -> bool:
        """Whether an answer to a question that was asked at this instant is out of date."""
        return any(True for _ in self._since(key, asked_at))

    def _since(self, key: Key, asked_at: float) -> Iterator[Change]:
        for room in (key.room, None):
            for (selector, change), made_at in self._by_room.get(room, {}).items():
                if asked_at <= made_at and selector.fits(key):
                    yield change

    def _forget(self, made: tuple[Selector, Change]) -> None:
        del self._made_at[made]
        room = made[0].room
        of_room = self._by_room[room]
        del of_room[made]
        if not of_room:
            del self._by_room[room]
