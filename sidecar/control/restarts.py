"""The end of meetings whose Prosody was killed, which tells the backend nothing any more.

When a module says hello, each room of its host in which nothing has happened since that Prosody was started is gone:
the backend gets `room-destroyed` with the cause `server-restart`. A Prosody that was stopped properly has kept its last
events, and sends the end of its rooms itself after the hello, so it gets time for that.
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
    FOR_EVENTS = 30.0
    """Seconds that a module gets for the events that it has from before."""
    MOST_HOSTS = 100

    def __init__(self, rooms: OpenRooms, accept: Callable[[Event], Awaitable[None]], clock: Clock, emit: Emit) -> None:
        """`accept` brings an event to the outbox, which then takes the room for closed."""
        self._rooms = rooms
        self._accept = accept
        self._clock = clock
        self._emit = emit
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._boots: dict[str, str] = {}
        """The Prosody of each host, as far as it is known."""

    def module_connected(self, host: str, boot: str, *, has_events: bool) -> None:
        """The module of this host says hello; `boot` names its Prosody. `has_events`: some from before its
        start are on their way."""
        started = started_at(boot)
        if started is None:
            return
        known, under_way = self._boots.get(host), self._tasks.get(host)
        if under_way is not None:
            if known == boot:
                return
            under_way.cancel()
        self._remember(host, boot)
        # An event knows the second in which it was, a Prosody that of its start: both are the same if it is up again at
        # once. At the first hello of another Prosody, nothing has happened in a room since.
        before = started + 1 if known not in (None, boot) else started
        ending = self._end_rooms(host, boot, before, self.FOR_EVENTS if has_events else 0.0)
        task = self._tasks[host] = asyncio.get_running_loop().create_task(ending)
        task.add_done_callback(lambda task: self._ended(host, task))

    def _remember(self, host: str, boot: str) -> None:
        self._boots.pop(host, None)
        self._boots[host] = boot
        if len(self._boots) > self.MOST_HOSTS:
            del self._boots[next(iter(self._boots))]

    async def stop(self) -> None:
        """End what is under way; the next hello begins again."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _end_rooms(self, host: str, boot: str, before: float, after: float) -> None:
        await asyncio.sleep(after)
        while True:
            try:
                rooms = await self._rooms.left_behind(host, before)
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
