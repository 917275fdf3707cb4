"""What goes wrong, one after the other and at random: each kind comes before any comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import yaml

from tests.rig.backend import Backend
from tests.rig.faults import Fault, spoilt
from tests.rig.sidecar import Sidecar
from tests.rig.smalldisk import SmallDisk
from tests.rig.wall_clock import WallClock
from tests.soak.load import Load, answer_by
from tests.soak.model import Model

Span = tuple[float, float]
"""Seconds, from and to."""

FAULTS = (
    Fault.HANG,
    Fault.RESET,
    Fault.SLOW_HEAD,
    Fault.HALF_BODY,
    Fault.ERROR_500,
    Fault.ERROR_503,
    Fault.TOO_MANY,
    Fault.UNAUTHORIZED,
    Fault.HTML_404,
    Fault.REDIRECT,
)
"""Besides a backend that refuses connections. None answers 2xx to an event that it has not taken."""

NOT_READABLE = ("breaker: {open_for: soon}\n", "listen: [\n", "nonsense: 1\n", "backend: {url: 2024-01-01}\n")


class Disturbances:
    """Of the sidecar, its machine and its backend."""

    def __init__(
        self,
        sidecar: Sidecar,
        backend: Backend,
        disk: SmallDisk,
        clock: WallClock,
        load: Load,
        model: Model,
        chance: random.Random,
    ) -> None:
        self._sidecar, self._backend, self._disk, self._clock = sidecar, backend, disk, clock
        self._load, self._model, self._chance = load, model, chance
        self._enough = asyncio.Event()

    def stop(self) -> None:
        """What has begun is carried out to its end, and a round to its last kind."""
        self._enough.set()

    async def of_the_sidecar(self, pause: Span) -> None:
        """Until stopped, in rounds of all kinds; `pause` is between two of them."""
        kinds = (
            self._kill,
            self._restart,
            self._reload,
            self._reload_of_nonsense,
            self._step_the_clock,
            self._fill_the_disk,
            partial(self._fill_the_disk, killed=True),
        )
        while not self._enough.is_set():
            for kind in self._shuffled(kinds):
                await asyncio.sleep(self._chance.uniform(*pause))
                await kind()

    async def of_the_backend(self, pause: Span, lasts: Span) -> None:
        """Until stopped: faults that last so many seconds, with a pause between two."""
        faults = (partial(self._gone, lasts), *(partial(self._fault, fault, lasts) for fault in FAULTS))
        while not self._enough.is_set():
            for fault in self._shuffled(faults):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._chance.uniform(*pause)):
                        await self._enough.wait()
                        return
                await fault()

    def _shuffled(self, kinds: Sequence[Callable[[], Awaitable[None]]]) -> list[Callable[[], Awaitable[None]]]:
        return self._chance.sample(kinds, len(kinds))

    # ---- the process

    async def _kill(self) -> None:
        self._model.counts["kills"] += 1
        self._load.killed_at = math.inf
        await self._sidecar.kill()
        self._load.killed_at = time.monotonic()
        await self._come_back()

    async def _restart(self) -> None:
        self._model.counts["restarts"] += 1
        self._load.stopped_at = time.monotonic()
        code = await self._sidecar.stop()
        if code != 0:
            self._model.defects.append(f"SIGTERM ended it with {code}")
        await self._come_back()
        self._load.stopped_at = 0.0

    async def _come_back(self) -> None:
        begun = time.monotonic()
        await self._sidecar.run()
        self._model.slowest_start = max(self._model.slowest_start, time.monotonic() - begun)

    # ---- its config

    async def _reload(self) -> None:
        window = self._chance.randrange(8, 13)
        self._sidecar.write({"breaker": {"window": window}, "backend": {"max_in_flight": 100 * window}})
        await self._reloads("applied")

    async def _reload_of_nonsense(self) -> None:
        good = yaml.safe_dump(self._sidecar.config)
        self._sidecar.file.write_text(good + self._chance.choice(NOT_READABLE))
        try:
            await self._reloads("refused")
        finally:
            self._sidecar.file.write_text(good)
        await self._reloads("applied")

    async def _reloads(self, result: str) -> None:
        self._model.counts[f"reloads {result}"] += 1
        before = await self._sidecar.metric("reloads_total", result=result)
        self._sidecar.signal(signal.SIGHUP)
        give_up_at = time.monotonic() + 30.0
        while await self._sidecar.metric("reloads_total", result=result) == before:
            if time.monotonic() > give_up_at:
                self._model.defects.append(f"no reload that is {result}")
                return
            await asyncio.sleep(0.05)

    # ---- its machine

    async def _step_the_clock(self) -> None:
        self._model.counts["clock steps"] += 1
        self._clock.set_ahead(self._chance.choice((-8 * 86_400, -3_600, -30, 0, 30, 3_600, 8 * 86_400)))

    async def _fill_the_disk(self, *, killed: bool = False) -> None:
        self._model.counts["full disks"] += 1
        await asyncio.to_thread(self._disk.fill)
        try:
            await asyncio.sleep(self._chance.uniform(1.0, 5.0))
            if killed:
                await self._kill()
                await asyncio.sleep(self._chance.uniform(0.0, 3.0))
        finally:
            self._disk.empty()

    # ---- the backend

    async def _fault(self, fault: Fault, lasts: Span) -> None:
        async with self._failing(lasts):
            answer_by(self._backend, self._model, partial(spoilt, fault))

    async def _gone(self, lasts: Span) -> None:
        async with self._failing(lasts):
            await self._backend.stop()

    @contextlib.asynccontextmanager
    async def _failing(self, lasts: Span) -> AsyncIterator[None]:
        self._model.counts["failures of the backend"] += 1
        self._model.fails()
        try:
            yield
            await asyncio.sleep(self._chance.uniform(*lasts))
        finally:
            await self._backend.stop()
            answer_by(self._backend, self._model)
            await self._backend.listen()
            self._model.works()
