"""Stand-in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sidecar.core.model import Event, Outcome


class Outbox:
    """Forward in the background."""

    def __init__(self, deliver: Callable[[Event, float], Awaitable[Outcome]]) -> None:
        """x."""
        self._deliver = deliver
        self._tasks: set[asyncio.Future[Any]] = set()

    async def accept(self, event: Event) -> None:
        """x."""
        task = asyncio.ensure_future(self._deliver(event, 10.0))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def counts(self) -> dict[str, Any]:
        """x."""
        return {"pending": len(self._tasks), "parked": 0, "oldest_seconds": 0}

    async def list(self, limit: int) -> Sequence[dict[str, Any]]:
        """x."""
        return []

    async def retry(self, ids: Sequence[int] | None) -> int:
        """x."""
        return 0

    async def drop(self, ids: Sequence[int] | None) -> int:
        """x."""
        return 0
