"""The disk: decisions, accepted events and orders, in three SQLite files. No other folder uses SQLite.

decisions  the rows of decisions.db     database  one file for the event loop: usable or not
events     the rows of outbox.db        worker    the thread in which its jobs run
orders     the rows of orders.db        open_rooms  what the events say about rooms
journal    more rows of orders.db: what other shards have to hear
ages       the clock of the decisions   file      the SQLite file in that thread; layout: its tables
uptime     the clock of the events      space, reserve, pages  for a full disk
                                        aside     files that cannot be used; salvage: the rows in them

Each file has its own thread, so that a corrupt or busy file does not affect the other one.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from sidecar.clock import Clock
from sidecar.facts import Emit
from sidecar.store.database import Database
from sidecar.store.decisions import LAYOUT as DECISIONS
from sidecar.store.decisions import Decisions
from sidecar.store.events import LAYOUT as OUTBOX
from sidecar.store.events import Events
from sidecar.store.journal import Journal
from sidecar.store.lock import FolderLock
from sidecar.store.open_rooms import OpenRooms
from sidecar.store.orders import LAYOUT as ORDERS
from sidecar.store.orders import Orders

__all__ = ["Decisions", "Events", "Store", "read_boot_id"]


def read_boot_id() -> str:
    """The name the kernel gave to this boot; a new one after every reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


class Store:
    """All files. With no folder, events and orders are kept in memory, and decisions only in the cache."""

    def __init__(self, folder: Path | None, clock: Clock, boot: str, emit: Emit, *, lock_within: float = 10.0) -> None:
        """Nothing is opened yet. `boot` is `read_boot_id()`. `lock_within`: seconds to wait for another process that
        is about to end."""
        self._lock = None if folder is None else FolderLock(folder, lock_within)
        self._outbox = Database(folder, OUTBOX, clock, emit)
        self.events = Events(self._outbox, clock, boot)
        self._orders = Database(folder, ORDERS, clock, emit)
        self.orders = Orders(self._orders, clock)
        self.journal = Journal(self._orders, clock)
        self.open_rooms = OpenRooms(self._outbox)
        self._decisions = None if folder is None else Database(folder, DECISIONS, clock, emit)
        self.decisions = None if self._decisions is None else Decisions(self._decisions, clock, boot, emit)
        self._databases = [each for each in (self._outbox, self._orders, self._decisions) if each is not None]

    @property
    def troubles(self) -> tuple[str, ...]:
        """What is wrong with the disk now, for `/readyz`; empty when nothing is."""
        return tuple(database.trouble for database in self._databases if database.trouble is not None)

    @property
    def aside(self) -> tuple[str, ...]:
        """The files in the folder that could not be used and were moved aside, until somebody deletes them."""
        return tuple(name for database in self._databases for name in database.aside)

    async def __aenter__(self) -> Store:
        """Lock the folder. Raises StartError if another sidecar has locked it, but not for a disk that is not usable:
        joins are answered without it."""
        if self._lock is not None:
            await self._lock.take()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files and unlock the folder."""
        for database in self._databases:
            await database.close()
        if self._lock is not None:
            self._lock.release()
