"""The only file that reads a clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: one to measure ages, one for dates."""

    def monotonic(self) -> float:
        """Seconds that never go back, that count while the machine is suspended, and that nobody can set."""
        ...

    def wall(self) -> float:
        """Unix seconds; may jump."""
        ...


class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME and not CLOCK_MONOTONIC: an allow must not live longer because the machine
    was suspended."""

    def monotonic(self) -> float:
        """Seconds since boot, suspended time included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Unix seconds."""
        return time.time()
