"""The end of meetings whose Prosody was killed, which tells the backend nothing any more.

When a module says hello, each room of its host in which nothing has happened since that Prosody was started is gone:
the backend gets `room-destroyed` with the cause `server-restart`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from sidecar.clock import Clock
from sidecar.core.events import OpenRoom, room_left_behind, started_at
from sidecar.core.model import Event
from sidecar.errors import DiskError, OutboxFull
from sidecar.facts import Crashed, Emit, Notice


class OpenRooms(Protocol):
    """The rooms that are open, as far as the events tell."""

    async def left_behind(self, host: str, before: float) -> list[OpenRoom]:
        """The rooms of this host of which nothing was heard since that time (Unix seconds). Raises DiskError."""
        ...


class Restarts:
    """Ends the rooms that a Prosody left behind."""

    AGAIN = 5.0
    """Seconds until the next attempt, where the outbox or the disk takes nothing."""

    def __init__(self, rooms: OpenRooms, accept: Callable[[Event], Awaitable[None]], clock: Clock, emit: Emit) -> None:
        """`accept` brings an event to the outbox, which then takes the room for closed."""
        self._rooms = rooms
        self._accept = accept
        self._clock = clock
        self._emit = emit
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def module_connected(self, host: str, boot: str) -> None:
        """The module of this host says hello; `boot` names its Prosody."""
        started = started_at(boot)
        if started is None:
            return
        if (earlier := self._tasks.get(host)) is not None:
            earlier.cancel()
        task = self._tasks[host] = asyncio.get_running_loop().create_task(self._end_rooms(host, boot, started))
        task.add_done_callback(lambda task: self._ended(host, task))

    async def stop(self) -> None:
        """End what is under way; the next hello begins again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_rooms(self, host: str, boot: str, started: float) -> None:
        while True:
            try:
                rooms = await self._rooms.left_behind(host, started)
                for room in rooms:
                    await self._accept(room_left_behind(room, boot, self._clock.wall()))
            except (DiskError, OutboxFull):
                await asyncio.sleep(self.AGAIN)
            else:
                break
        if rooms:
            text = f"Prosody was restarted without an end of {len(rooms)} meetings; the backend hears of it now"
            self._emit(Notice(text, "warning"))

    def _ended(self, host: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(host) is task:
            del self._tasks[host]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emit(Crashed("restart", error))
