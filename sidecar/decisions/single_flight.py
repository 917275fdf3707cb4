"""Single flight: one call per key, so that equal questions at the same time wait for the same answer.

A call is a task of its own: it goes on when nobody waits for it any more. If it crashes, each waiter gets the error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Pending:
    """The call is still under way."""


PENDING = Pending()


class CallCancelled(Exception):
    """The call was cancelled; its waiters were not."""


@dataclass(frozen=True, slots=True, eq=False)
class Call(Generic[V]):
    """A call under way."""

    task: asyncio.Task[V]
    started_at: float

    async def within(self, seconds: float) -> V | Pending:
        """Its result, or `PENDING` after so long. Raises what the call raised, CallCancelled if it was cancelled."""
        if not self.task.done():
            await asyncio.wait([self.task], timeout=max(0.0, seconds))
        if not self.task.done():
            return PENDING
        if self.task.cancelled():
            raise CallCancelled
        return self.task.result()


class SingleFlight(Generic[K, V]):
    """The calls under way, by key."""

    def __init__(self, on_crash: Callable[[BaseException], None]) -> None:
        """`on_crash` gets each exception that leaves a call, once, with or without waiters."""
        self._by_key: dict[K, Call[V]] = {}
        self._tasks: set[asyncio.Task[V]] = set()
        self._on_crash = on_crash

    def __len__(self) -> int:
        """Calls under way."""
        return len(self._tasks)

    def under_way(self) -> list[K]:
        """The keys of the calls that a question can join."""
        return list(self._by_key)

    def get(self, key: K) -> Call[V] | None:
        """The call that a question can join. A call that has ended is not one, even if its callback has not run yet."""
        call = self._by_key.get(key)
        return None if call is None or call.task.done() else call

    def start(self, key: K, now: float, work: Coroutine[Any, Any, V]) -> Call[V]:
        """Begin a call. One that is under way for this key goes on for its waiters."""
        task = asyncio.get_running_loop().create_task(work)
        call = Call(task, now)
        self._by_key[key] = call
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._on_end(key, call))
        return call

    def detach(self, fits: Callable[[K], bool]) -> None:
        """No question joins these calls any more; those that wait already go on waiting."""
        for key in [key for key in self._by_key if fits(key)]:
            del self._by_key[key]

    def _on_end(self, key: K, call: Call[V]) -> None:
        self._tasks.discard(call.task)
        if self._by_key.get(key) is call:
            del self._by_key[key]
        error = None if call.task.cancelled() else call.task.exception()
        if error is not None:
            self._on_crash(error)

    async def drain(self, seconds: float) -> None:
        """Let what is under way end, for at most so long; then cancel the rest."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
