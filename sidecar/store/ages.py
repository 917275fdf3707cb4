"""The clock that rows on disk are dated with: Unix seconds that never run backwards, over restarts and reboots.

While the machine is up it advances with CLOCK_BOOTTIME, and follows a wall clock that jumps ahead. Across a reboot it
advances by what the wall clock says has passed, and never below the highest wall time ever seen. So an age measured
with it is at least as large as what any of the clocks say: a restart never makes an entry younger, and a wall clock
that is set back or forth never revives one.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the clocks said at one instant; `time` is the disk's own clock, and never behind `wall`."""

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
    """The stamp of now, after the last one that was written down (by this process or an earlier one)."""
    if last is None:
        return Stamp(boot, boottime, wall, wall)
    ran = boottime - last.boottime if boot == last.boot else 0.0
    return Stamp(boot, boottime, wall, last.time + max(0.0, ran, wall - last.wall))


def advance(last: Stamp, boottime: float, wall: float) -> Stamp:
    """The stamp of now, after one of the same process."""
    return Stamp(last.boot, boottime, wall, max(last.time + max(0.0, boottime - last.boottime), wall))
