"""What the shared memory needs of the other parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sidecar.core.contact import Batch
from sidecar.core.engine_clock import Renewal
from sidecar.core.members import Member
from sidecar.core.sealed import Found, ToKeep


class Engine(Protocol):
    """What is needed of the engine; everything raises EngineError."""

    members: int
    """Sidecars that have been there lately."""
    replicas: int
    """Replicas of the engine."""
    before: str
    """The process that has shown itself under the name of this shard before the last beat; empty: none."""

    async def beat(self, position: int, shard: str, renewal: Renewal | None = None, process: str = "") -> Batch:
        """Show that this shard is there, with this process, and read the stream after `position`."""
        ...

    async def present(self, ages: Mapping[str, float]) -> tuple[str, list[Member]]:
        """Give the engine the names of shards that it may have forgotten, with the seconds for which they have been
        away. Returns its epoch, and all shards that may have rooms."""
        ...

    async def wait_for_message(self, position: int) -> None:
        """Return when there is a message after `position`, or after a while."""
        ...

    async def read(self, name: str, scopes: Sequence[str], *, patient: bool = False) -> Found:
        """The answer of that name, and the fences of its key. `patient`: no question waits for it."""
        ...

    async def keep(self, answers: Sequence[ToKeep]) -> list[str]:
        """Keep answers that are no denies, if their fences are still the same."""
        ...

    async def deny(
        self,
        name: str,
        scopes: Sequence[str],
        verdict: str,
        asked_for_ms: int,
        settled_for_ms: int,
        lifetime_ms: int,
        content: bytes,
        every_ms: int,
        message: bytes,
        *,
        again: bool = False,
    ) -> str:
        """Keep a deny that was asked and answered so long ago, and say so. `again`: not if this epoch knows it. Returns
        the epoch."""
        ...

    async def change(self, changes: Sequence[tuple[str, Sequence[str], bytes]]) -> str:
        """For each, in order: replace a part of these fences, and say this message. Returns the epoch in which it was
        done."""
        ...

    async def changes(self) -> tuple[int, list[tuple[int, bytes]]]:
        """The engine's clock, and the messages of the changes of the last day, each with when it was said."""
        ...

    async def withdraw(self, name: str) -> None:
        """Keep nothing under this name."""
        ...

    async def close(self) -> None:
        """Close all connections. Raises nothing."""
        ...


class Orders(Protocol):
    """Who hears what other shards say about orders. Nothing here waits."""

    def heard(self, document: dict[str, Any], now_ms: int) -> None:
        """A message, at this time of the engine. Raises Forged."""
        ...

    def lost(self) -> None:
        """Messages may have been missed, or the engine may have lost some."""
        ...
