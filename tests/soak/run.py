"""One run: the load, what goes wrong beside it, a calm end, and what is left over."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar
from tests.rig.smalldisk import MEBIBYTE, small_disk
from tests.rig.wall_clock import WallClock
from tests.soak.disturbances import Disturbances
from tests.soak.load import Load, answer_by
from tests.soak.measured import Flat, Measured
from tests.soak.model import SETTINGS, Model
from tests.soak.report import grown

DISK = 48 * MEBIBYTE
CALM = 0.1
"""The part of the time at the end in which nothing goes wrong."""
EMPTY_WITHIN = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen."""

    model: Model
    flat: list[Flat]

    @property
    def problems(self) -> list[str]:
        """Whatever must not be."""
        return [*self.model.problems, *grown(self.flat)]


async def soak(seconds: float, seed: int, folder: Path) -> Result:
    """One run in an empty folder. The seed decides what happens and in which order, not at which microsecond."""
    model, chance, clock = Model(), random.Random(seed), WallClock(folder)
    with small_disk(folder / "disk", DISK, "ext4") as disk:
        settings = {**SETTINGS, "state_dir": str(disk.folder / "state")}
        async with Backend() as backend, Sidecar.prepared(backend.url, settings, clock.environ) as sidecar:
            answer_by(backend, model)
            await sidecar.run()
            load = Load(sidecar, backend, model, random.Random(chance.random()))
            wrong = Disturbances(sidecar, backend, disk, clock, load, model, random.Random(chance.random()))
            measured = Measured(sidecar, disk.folder / "state")
            async with asyncio.TaskGroup() as group:
                measuring = group.create_task(measured.keep_measuring())
                loading = [group.create_task(work) for work in load.works()]
                going_wrong = [
                    group.create_task(wrong.of_the_sidecar(pause=(0.5, max(1.5, seconds / 100)))),
                    group.create_task(wrong.of_the_backend(pause=(9.0, max(12.0, seconds / 30)), lasts=(0.5, 8.0))),
                ]
                await asyncio.sleep((1 - CALM) * seconds)
                wrong.stop()
                await asyncio.wait(going_wrong)
                await asyncio.sleep(CALM * seconds)
                load.stop()
                await asyncio.wait(loading)
                await _judge_the_end(sidecar, model)
                measuring.cancel()
    return Result(model, measured.flat())


async def _judge_the_end(sidecar: Sidecar, model: Model) -> None:
    """Every event arrives, nothing is degraded, it stops well, and it has reported no defect."""
    give_up_at = asyncio.get_running_loop().time() + EMPTY_WITHIN
    while await sidecar.metric("outbox_pending") and asyncio.get_running_loop().time() < give_up_at:
        await asyncio.sleep(0.1)
    for name in ("outbox_pending", "outbox_parked", "files_set_aside", "degraded"):
        if seen := await sidecar.metric(name):
            model.defects.append(f"in the end, {name} is {seen:g}: {(await sidecar.get('/readyz')).body.decode()}")
    if (code := await sidecar.stop()) != 0:
        model.defects.append(f"in the end, SIGTERM ended it with {code}")
    output = sidecar.output()
    model.defects += [line for line in output.splitlines() if "Traceback" in line or "defect" in line]
