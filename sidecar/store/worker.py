"""One thread for one file: jobs run in the order they were given, the event loop never waits for a disk."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Worker:
    """A daemon thread: a disk that hangs for ever cannot keep the process from ending."""

    def __init__(self, name: str) -> None:
        """The thread starts with the first job."""
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """Run the job in the thread. If the caller is cancelled, it stops waiting, but the job is still run."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(partial(_do, job, future, loop))
        return await future

    def stop(self) -> None:
        """End the thread after the jobs it has, without waiting for it."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _do(job: Callable[[], T], future: asyncio.Future[T], loop: asyncio.AbstractEventLoop) -> None:
    settle: Callable[[], Any]
    try:
        settle = partial(_settle, future, job())
    except BaseException as error:  # noqa: BLE001  (every error goes to the caller of the job)
        settle = partial(_fail, future, error)
    with contextlib.suppress(RuntimeError):  # the loop has been closed: nothing waits for the result
        loop.call_soon_threadsafe(settle)


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
