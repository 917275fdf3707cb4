"""The clock of the disk, which dates the rows: Unix seconds that never run backwards, over restarts and reboots.

While the machine is up, this clock advances with CLOCK_BOOTTIME; if the wall clock jumps ahead, it follows. Over a
reboot it advances by the time that has passed on the wall clock, at least by the time since this boot, and it is never
below the highest wall time seen. So no restart and no change of the wall clock makes an entry younger.

Only the wall clock says for how long a machine was off, and at boot it can be wrong:
    behind the last stamp           for how long the machine was off is not known: `is_off_unknown`
    set forward after the start     the machine was off for longer than it seemed: `missed`
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


_TOLERANCE = 5.0
"""Seconds by which the wall clock may be behind after a boot without being wrong: it is read from a clock that counts
whole seconds."""


def resume(last: Stamp | None, boot: str, boottime: float, wall: float) -> Stamp:
    """The stamp of now, after the last one on disk (of this process or an earlier one)."""
    if last is None:
        return Stamp(boot, boottime, wall, wall)
    return Stamp(boot, boottime, wall, last.time + max(0.0, _ran(last, boot, boottime), wall - last.wall))


def is_off_unknown(last: Stamp | None, boot: str, boottime: float, wall: float) -> bool:
    """Whether the machine was off since the last stamp for a time that nobody knows: by the wall clock, less time has
    passed than since this boot."""
    if last is None or _is_same_boot(last, boot, boottime):
        return False
    return wall - last.wall < boottime - _TOLERANCE


def missed(first: Stamp, boottime: float, wall: float) -> float:
    """Seconds by which the wall clock was set forward since the first stamp of a process."""
    return max(0.0, (wall - first.wall) - (boottime - first.boottime))


def _ran(last: Stamp, boot: str, boottime: float) -> float:
    """Seconds that have passed for certain; after a reboot, those since the boot."""
    return boottime - last.boottime if _is_same_boot(last, boot, boottime) else boottime


def _is_same_boot(last: Stamp, boot: str, boottime: float) -> bool:
    return boot == last.boot and boottime >= last.boottime


def advance(last: Stamp, boottime: float, wall: float) -> Stamp:
    """The stamp of now, after another one of the same process."""
    return Stamp(last.boot, boottime, wall, max(last.time + max(0.0, boottime - last.boottime), wall))
