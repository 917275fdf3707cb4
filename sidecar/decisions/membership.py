"""This sidecar among the others: its name, and the shards that may have rooms.

engine.beat -> beaten -> engine.members     all names; those that the engine has forgotten are given back to it
                      -> journal            a new name, where the state directory was copied
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.clock import Clock
from sidecar.core.contact import Batch
from sidecar.core.engine_clock import Renewal
from sidecar.core.members import Members, Process
from sidecar.decisions.needs import Engine
from sidecar.decisions.to_say import Journal
from sidecar.errors import DiskError, EngineError
from sidecar.facts import Emit, Notice, StrangersChanged

_COPIED = (
    "another sidecar has the name of this shard: its state_dir was copied to this machine, or from it. This sidecar "
    "has taken a new name. Before the first start of a copied machine, empty its state_dir: else events and orders "
    "that waited when it was copied are sent twice"
)


class Membership:
    """The part of one process."""

    def __init__(
        self, engine: Engine, journal: Journal, own: Process, new_text: Callable[[int], str], clock: Clock, emit: Emit
    ) -> None:
        """`new_text(n)` returns n random bytes in hex."""
        self.shard = own.member
        """The name of this shard, which outlives the process as soon as it was read from disk."""
        self.notes: tuple[str, ...] = ()
        """What an operator should know."""
        self._members = Members(own)
        self._kept: frozenset[str] | None = None
        """All names that are on disk; None: that is not known."""
        self._writing: set[asyncio.Future[None]] = set()
        self._engine = engine
        self._journal = journal
        self._own = own
        self._new_text = new_text
        self._clock = clock
        self._emit = emit

    @property
    def strangers(self) -> int:
        """Sidecars that are there and have another key, or other domains."""
        return self._members.strangers

    @property
    def complete_in(self) -> str:
        """The epoch of the engine that knows all shards that may have rooms; empty: nobody can say."""
        return self._members.complete_in(self._clock.monotonic())

    async def load(self) -> None:
        """Read the name of this shard from disk. Raises DiskError."""
        self.shard = await self._journal.name(self.shard)
        self._kept = frozenset(await self._journal.shards())
        self._members.recall(self._kept)

    async def beat(self, position: int, renewal: Renewal | None) -> Batch:
        """Show this shard to the engine, and read the stream after `position`. Raises EngineError."""
        return await self._engine.beat(position, self.shard, renewal, self._own.text)

    async def beaten(self, epoch: str) -> bool:
        """Do what follows for the names from a beat in this epoch. Returns whether this shard has a new name."""
        now = self._clock.monotonic()
        is_copy = self._members.has_older_namesake(Process.of(self._engine.before), now)
        if is_copy:
            self._take_new_name()
        if self._members.beat(epoch, self._engine.members, now):
            with contextlib.suppress(EngineError):  # the next beat leads here again
                await self._read()
        return is_copy

    def _take_new_name(self) -> None:
        self.shard = self._new_text(8)
        self.notes = (f"shared memory: {_COPIED}",)
        self._emit(Notice(_COPIED, "error"))
        self._write(self._journal.rename(self.shard))

    async def _read(self) -> None:
        before = self.strangers
        epoch, known = await self._engine.present({})
        if missing := self._members.missing(known):
            epoch, known = await self._engine.present(missing)
        if self._members.missing(known):
            return  # the engine has lost its memory once more
        self._members.take(epoch, known, self._clock.monotonic())
        self._keep()
        if self.strangers != before:
            self._emit(StrangersChanged(self.strangers, self._engine.members))

    def _keep(self) -> None:
        """Write the names to disk, where the engine and this process can be lost together."""
        if self._kept not in (None, self._members.shards):
            self._kept = self._members.shards
            self._write(self._journal.keep_shards(self._kept))

    def _write(self, work: Coroutine[Any, Any, None]) -> None:
        """Write to disk without waiting: a slow disk must not keep this sidecar from hearing the others."""
        task = asyncio.ensure_future(_quietly(work))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)


async def _quietly(work: Coroutine[Any, Any, None]) -> None:
    with contextlib.suppress(DiskError):  # said by the store; what is on disk is only older
        await work
