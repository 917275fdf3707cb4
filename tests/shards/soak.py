"""`make soak-shards`: three sidecars with one engine for fifteen minutes, while the engine fails every twenty seconds.

People join on all shards who are invited, who are not, and who were until a moment ago; they are kicked and forgotten.
Beside the engine's failures (engine_faults.py, in an order that follows from a seed, each on some of the ways to it),
shards are killed, and the backend is away for seconds. Each answer is compared with a model (soak_model.py). The last
tenth of the time is calm.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from redis.exceptions import RedisError
from rich.table import Table

from tests.rig.answers import Request
from tests.rig.backend import OPEN, Backend
from tests.rig.sidecar import Sidecar
from tests.shards.engine_faults import FAULTS, EngineFault, Place
from tests.shards.rig import all_in_touch, all_said, in_touch, order, shard, until
from tests.shards.soak_model import CHANGING, ROOMS, SETTINGS, SoakModel, Who, somebody
from tests.soak import report
from tests.soak.measured import Flat, Measured

SHARDS, JOINERS = 3, 6
PAUSE = 0.1
CALM = 0.1
"""The part of the time at the end in which nothing goes wrong."""
BACK_WITHIN = 30.0
"""Seconds in which all shards must be in touch again when a fault has ended."""
NOBODY = (aiohttp.ClientError, TimeoutError)


class Soak:
    """One run. The seed decides what happens and in which order, not at which microsecond."""

    def __init__(self, place: Place, backend: Backend, sidecars: list[Sidecar], seed: int, every: float) -> None:
        self.model = SoakModel()
        self._place = place
        self._backend = backend
        self._sidecars = sidecars
        self._down: set[int] = set()
        self._every = every
        self._chance = random.Random(seed)
        self._calm = asyncio.Event()
        self._enough = asyncio.Event()
        self._direct()

    def wrongs(self) -> list[Coroutine[Any, Any, None]]:
        """What goes wrong, until it is calm."""
        return [self._fail_the_engine(), self._kill_shards(), self._take_the_backend_away()]

    def load(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on to the end."""
        return [*(self._join() for _ in range(JOINERS)), self._change(), self._order(), self._forget_requests()]

    def be_calm(self) -> None:
        """What has begun is carried out to its end."""
        self._calm.set()

    def stop(self) -> None:
        self._enough.set()

    def _direct(self) -> None:
        async def decision(request: Request) -> web.StreamResponse:
            allowed = self.model.answers((request.room, request.body["userJid"].partition("/")[0]))
            return web.json_response({"allowed": allowed, "reason": None})

        self._backend.on("validate-access", decision)

    # ---- the load

    async def _join(self) -> None:
        while not self._enough.is_set():
            number, who, sent_at = self._chance.randrange(SHARDS), somebody(self._chance), time.monotonic()
            if number not in self._down:
                try:
                    reply = await self._sidecars[number].decides(*who)
                    if number not in self._down:
                        self.model.judge(who, number, sent_at, reply)
                except NOBODY as error:
                    if number not in self._down:
                        self.model.defects.append(f"no answer at {number}: {error!r}")
            await _pause(self._enough, self._chance.uniform(0, 2 * PAUSE))

    async def _change(self) -> None:
        while not self._enough.is_set():
            self.model.change(self._somebody_changing())
            await _pause(self._enough, 4 * PAUSE)

    def _somebody_changing(self) -> Who:
        return self._chance.choice(ROOMS), self._chance.choice(CHANGING)

    async def _order(self) -> None:
        """Kicks, and answers that are forgotten."""
        while not self._enough.is_set():
            number, who, sent_at = self._chance.randrange(SHARDS), self._somebody_changing(), time.monotonic()
            fields = {"room": who[0], "user": who[1]}
            verb = self._chance.choice(("kick", "forget"))
            with contextlib.suppress(*NOBODY):
                mode = {"mode": "drop"} if verb == "forget" else {}
                status, _ = await order(self._sidecars[number], verb, **fields, **mode)
                self.model.counts[f"{verb}, {status}"] += 1
                if status in (200, 202) and number not in self._down:
                    self.model.ordered(who, number, sent_at)
            await _pause(self._enough, 10 * PAUSE)

    async def _forget_requests(self) -> None:
        while not self._enough.is_set():
            self._backend.requests.clear()
            await _pause(self._enough, 1.0)

    # ---- what goes wrong

    async def _fail_the_engine(self) -> None:
        while not self._calm.is_set():
            for fault in self._chance.sample(FAULTS[1:], len(FAULTS) - 1):
                begun = time.monotonic()
                try:
                    await self._fail(fault)
                except (RedisError, OSError, AssertionError) as error:
                    self.model.defects.append(f"{fault.name} could not be produced: {error!r}")
                await _pause(self._calm, self._every - (time.monotonic() - begun))
                if self._calm.is_set():
                    break

    async def _fail(self, fault: EngineFault) -> None:
        place, model = self._place, self.model
        model.counts["failures of the engine"] += 1
        model.engine_bad_since = time.monotonic()
        place.affected = tuple(self._chance.sample(place.ways, self._chance.randint(1, SHARDS)))
        await fault.prepare(place)
        await asyncio.sleep(self._chance.uniform(0.5, 2.0))
        await fault.begin(place)
        await asyncio.sleep(self._chance.uniform(0.4, 0.6) * self._every)
        await fault.end(place)
        with contextlib.suppress(aiohttp.ClientError):
            try:
                await until(self._are_in_touch, BACK_WITHIN)
            except AssertionError:
                model.defects.append(f"not in touch {BACK_WITHIN:g} s after: {fault.name}")
        model.engine_bad_since, model.engine_well_since = None, time.monotonic()

    async def _are_in_touch(self) -> bool:
        return all([await in_touch(each) for each in self._running()])

    def _running(self) -> list[Sidecar]:
        return [sidecar for number, sidecar in enumerate(self._sidecars) if number not in self._down]

    async def _kill_shards(self) -> None:
        while not self._calm.is_set():
            await _pause(self._calm, self._chance.uniform(1.0, 2.0) * self._every)
            number = self._chance.randrange(SHARDS)
            self.model.counts["shards killed"] += 1
            self._down.add(number)
            await self._sidecars[number].kill()
            self.model.killed(number)
            await self._sidecars[number].run()
            self.model.engine_well_since = time.monotonic()  # it is not in touch yet
            self._down.discard(number)

    async def _take_the_backend_away(self) -> None:
        while not self._calm.is_set():
            await _pause(self._calm, self._chance.uniform(0.5, 2.0) * self._every)
            self.model.counts["times without the backend"] += 1
            self.model.backend_away = True
            await self._backend.stop()
            await asyncio.sleep(self._chance.uniform(1.0, 6.0))
            await self._backend.listen()
            self.model.backend_away, self.model.backend_well_since = False, time.monotonic()


async def _pause(ends: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await ends.wait()


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen. `engine_memory` is in bytes."""

    model: SoakModel
    flat: list[Flat]
    engine_memory: int

    @property
    def problems(self) -> list[str]:
        """Whatever must not be."""
        return [*self.model.problems, *report.grown(self.flat)]


async def soak(seconds: float, seed: int, every: float) -> Result:
    """One run. `every`: seconds from one failure of the engine to the next."""
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(Backend(OPEN))
        place = await stack.enter_async_context(Place.start(SHARDS))
        sidecars = [await stack.enter_async_context(shard(backend, way.url, SETTINGS)) for way in place.ways]
        await all_in_touch(*sidecars)
        run = Soak(place, backend, sidecars, seed, every)
        measured = [Measured(sidecar, sidecar.folder / "state") for sidecar in sidecars]
        async with asyncio.TaskGroup() as group:
            measuring = [group.create_task(each.keep_measuring()) for each in measured]
            loading = [group.create_task(each) for each in run.load()]
            wrong = [group.create_task(each) for each in run.wrongs()]
            await asyncio.sleep((1 - CALM) * seconds)
            run.be_calm()
            await asyncio.wait(wrong)
            await asyncio.sleep(CALM * seconds)
            run.stop()
            await asyncio.wait(loading)
            for task in measuring:
                task.cancel()
        await _judge_the_end(run.model, sidecars)
        memory = int((await place.engine.info("memory"))["used_memory"])
        flat = [
            Flat(f"shard {number}: {each.name}", each.first, each.last, each.slack)
            for number, of_one in enumerate(measured)
            for each in of_one.flat()
        ]
        return Result(run.model, flat, memory)


async def _judge_the_end(model: SoakModel, sidecars: list[Sidecar]) -> None:
    """All are in touch, have said all they know, and have reported no defect."""
    with contextlib.suppress(AssertionError):
        await all_in_touch(*sidecars, seconds=BACK_WITHIN)
    for number, sidecar in enumerate(sidecars):
        if not (await in_touch(sidecar) and await all_said(sidecar)):
            model.defects.append(f"shard {number} is not in touch at the end: {sidecar.output().splitlines()[-1]}")
        for outcome in ("hit", "suspect", "miss", "outdated", "forged", "failed"):
            model.counts[f"reads of the engine since the last start: {outcome}"] += int(
                await sidecar.metric("shared_reads_total", outcome=outcome)
            )
        lines = sidecar.output().splitlines()
        model.defects += [f"shard {number}: {line}" for line in lines if "Traceback" in line or "defect" in line]


def table(result: Result) -> Table:
    """What happened, and what of it must not."""
    model = result.model
    figures = {
        "longest answer while the backend was well, ms": f"{model.longest * 1000:.0f}",
        "memory of the engine, MB": f"{result.engine_memory / 1e6:.1f}",
    }
    must_be_none = {
        "forbidden allows": len(model.forbidden),
        "invited and refused": len(model.refused),
        "defects": len(model.defects),
    }
    return report.table(model.counts, figures, must_be_none, result.flat)


def run(arguments: argparse.Namespace) -> tuple[Table, list[str]]:
    result = asyncio.run(soak(60.0 * arguments.minutes, arguments.seed, arguments.every))
    return table(result), result.problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak-shards", description=__doc__)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two failures (default 20)")
    return report.main(parser, 15.0, run)


if __name__ == "__main__":
    sys.exit(main())
