"""What the sidecar holds of the machine, from time to time: memory, descriptors, and bytes on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from tests.rig.sidecar import Sidecar

EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Flat:
    """A quantity that must not grow: its highest value in the first third of the run, and in the last."""

    name: str
    first: float
    last: float
    slack: float

    @property
    def held(self) -> bool:
        return self.last <= 1.25 * self.first + self.slack


@dataclass
class Measured:
    """Samples of one run, over all its processes."""

    sidecar: Sidecar
    folder: Path
    memory: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    disk: list[float] = field(default_factory=list)

    async def keep_measuring(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(OSError):  # it has just been killed
                self._measure()
            await asyncio.sleep(EVERY)

    def _measure(self) -> None:
        process = self.sidecar.process
        if process is None or process.returncode is not None:
            return
        proc = Path(f"/proc/{process.pid}")
        pages = int((proc / "statm").read_text("ascii").split()[1])
        descriptors = len(list((proc / "fd").iterdir()))
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
        self.descriptors.append(descriptors)
        self.disk.append(sum(file.stat().st_size for file in self.folder.glob("*")) / 1e6)

    def flat(self) -> list[Flat]:
        """One for each quantity."""
        kinds = (
            ("memory, MB", self.memory, 5.0),
            ("descriptors", self.descriptors, 10.0),
            ("on disk, MB", self.disk, 5.0),
        )
        return [Flat(name, max(_third(samples, 0)), max(_third(samples, 2)), slack) for name, samples, slack in kinds]


def _third(samples: list[float], number: int) -> list[float]:
    size = max(1, len(samples) // 3)
    return samples[number * size : (number + 1) * size] or samples[-1:] or [0.0]
