"""What was heard about keys that are not known here. The name of such a key is a digest: whom it is about is found out
only when somebody asks about the key.
"""

from __future__ import annotations

from collections import deque

from sidecar.core.model import Entry, Key
from sidecar.core.selection import Selector

MOST = 10_000
"""Restrictions; with more, the oldest are left out: the engine has them."""


class UnknownKeys:
    """Restrictions by the names of their keys. Instants are seconds of one monotonic clock."""

    def __init__(self) -> None:
        """None yet."""
        self._heard: dict[str, tuple[Entry, float]] = {}
        """By name: what was heard, and when."""
        self._dropped: deque[tuple[Selector, float, float]] = deque(maxlen=MOST)
        """What was purged since, as of which instant, and when that was heard."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._heard)

    def put(self, name: str, entry: Entry, now: float) -> None:
        """Keep what is heard now about a key of this name."""
        self._heard.pop(name, None)
        self._heard[name] = entry, now
        if len(self._heard) > MOST:
            del self._heard[next(iter(self._heard))]

    def dropped(self, selector: Selector, at: float, now: float) -> None:
        """This was purged as of an instant; which names are meant is seen at `pop`."""
        if self._heard:
            self._dropped.append((selector, at, now))
        else:
            self._dropped.clear()

    def pop(self, key: Key, name: str) -> Entry | None:
        """What was heard about a key, which is known from now on; None: nothing, or it was purged since."""
        entry, heard = self._heard.pop(name, (None, 0.0))
        if entry is None:
            return None
        purged = any(entry.asked_at <= at and heard <= now and meant.fits(key) for meant, at, now in self._dropped)
        return None if purged else entry
