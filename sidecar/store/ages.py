"""The clock of the disk, which dates the rows: Unix seconds that never run backwards, over restarts and reboots.

While the machine is up, this clock advances with CLOCK_BOOTTIME; if the wall clock jumps ahead, it follows. Over a
reboot it advances by the time that has passed on the wall clock, and it is never below the highest wall time seen. So
an age by this clock is at least as large as by any other: no restart and no change of the wall clock makes an entry
younger.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stamp:
    """The clocks at one instant; `time` is the clock of the disk, and never less than `wall`."""

    boot: str
    boottime: float
    wall: float
    time: float

    def at(self, boottime: float) -> float:
        """The disk's time of an instant of CLOCK_BOOTTIME in this boot."""
        return self.time - (self.boottime - boottime)

    def boottime_of(self, time: float) -> float:
        """The instant of CLOCK_BOOTTIME of a time on disk; before this boot it is negative."""
        return self.boottime - (self.time - time)


def resume(last: Stamp | None, boot: str, boottime: float, wall: float) -> Stamp:
    """The stamp of now, after the last one on disk (of this process or an earlier one)."""
    if last is None:
        return Stamp(boot, boottime, wall, wall)
    ran = boottime - last.boottime if boot == last.boot else 0.0
    return Stamp(boot, boottime, wall, last.time + max(0.0, ran, wall - last.wall))


def advance(last: Stamp, boottime: float, wall: float) -> Stamp:
    """The stamp of now, after another one of the same process."""
    return Stamp(last.boot, boottime, wall, max(last.time + max(0.0, boottime - last.boottime), wall))
