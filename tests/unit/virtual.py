"""An event loop whose time passes only when everybody waits: four seconds of waiting take no time at all.

    @in_virtual_time
    async def test_something() -> None: ...

The loop never sleeps. Where nothing is left to happen and somebody still waits, it says so instead of hanging.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

P = ParamSpec("P")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time()` jumps to the next timer as soon as nothing is ready."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Impatient(self))

    def time(self) -> float:
        return self.now


class _Impatient(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("somebody waits for something that will never happen")
        self._loop.now += max(0.0, timeout)
        return super().select(0)


class VirtualClock:
    """The loop's time, and a hair more at each reading, as with a real clock no two readings are the same."""

    HAIR = 1e-7

    def __init__(self, booted_at: float = 0.0, wall_offset: float = 1_700_000_000.0) -> None:
        """Both in seconds of the loop."""
        self._readings = 0
        self._booted_at = booted_at
        self.wall_offset = wall_offset

    def monotonic(self) -> float:
        self._readings += 1
        return asyncio.get_running_loop().time() - self._booted_at + self._readings * self.HAIR

    def wall(self) -> float:
        return asyncio.get_running_loop().time() + self.wall_offset


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on a loop of its own, in virtual time."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
