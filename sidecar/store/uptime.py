"""The clock of the outbox: the seconds for which the machine has been up since the file was made.

An event that nobody takes is given up after so many seconds in which it could have been delivered, not when the date
says so: a date may be wrong by days. So this clock advances with CLOCK_BOOTTIME and never reads the wall clock. While
the machine is off it stands still, since only the wall clock knows for how long: an event is rather delivered late
than given up too early.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Uptime:
    """Both clocks at one instant."""

    boot: str
    boottime: float
    time: float

    def boottime_of(self, time: float) -> float:
        """The instant of CLOCK_BOOTTIME of a time on disk; before this boot it may be negative."""
        return self.boottime - (self.time - time)


def resume(last: Uptime | None, boot: str, boottime: float) -> Uptime:
    """The clocks now, after the last ones on disk (of this process or an earlier one)."""
    if last is None:
        return Uptime(boot, boottime, 0.0)
    passed = boottime - last.boottime if boot == last.boot else 0.0
    return Uptime(boot, boottime, last.time + max(0.0, passed))
