"""The disk: decisions and accepted events, in two SQLite files in the state folder. No other folder uses SQLite.

decisions  the rows of decisions.db     database  one file for the event loop: usable or not
events     the rows of outbox.db        worker    the thread in which its jobs run
ages       the clock of the decisions   file      the SQLite file in that thread
uptime     the clock of the events      reserve, pages  for a full disk
                                        aside     files that cannot be used; salvage: the rows in them

Each file has its own thread, so that a corrupt or busy file does not affect the other one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from types import TracebackType

from sidecar.clock import Clock
from sidecar.errors import StartError
from sidecar.facts import Emit
from sidecar.store.database import Database
from sidecar.store.decisions import LAYOUT as DECISIONS
from sidecar.store.decisions import Decisions
from sidecar.store.events import LAYOUT as OUTBOX
from sidecar.store.events import Events
from sidecar.store.file import make_private

__all__ = ["Decisions", "Events", "Store", "read_boot_id"]


def read_boot_id() -> str:
    """The name the kernel gave to this boot; a new one after every reboot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()


class Store:
    """Both files. With no folder, events are kept in memory, and decisions only in the cache."""

    def __init__(self, folder: Path | None, clock: Clock, boot: str, emit: Emit) -> None:
        """Nothing is opened yet. `boot` is `read_boot_id()`."""
        self._folder = folder
        self._lock: int | None = None
        self._outbox = Database(folder, OUTBOX, clock, emit)
        self.events = Events(self._outbox, clock, boot)
        self._decisions = None if folder is None else Database(folder, DECISIONS, clock, emit)
        self.decisions = None if self._decisions is None else Decisions(self._decisions, clock, boot, emit)
        self._databases = [each for each in (self._outbox, self._decisions) if each is not None]

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
        if self._folder is not None:
            with contextlib.suppress(OSError):
                make_private(self._folder)
                self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if self._lock is not None:
                _claim(self._lock, self._folder)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close both files and unlock the folder."""
        await self._outbox.close()
        if self._decisions is not None:
            await self._decisions.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _claim(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StartError(f"another sidecar is using {folder}; give each its own state_dir") from None
