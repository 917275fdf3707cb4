"""The time of day of a process: libfaketime changes it for the daemon and for nothing else."""

from __future__ import annotations

from pathlib import Path


class WallClock:
    """A wall clock that somebody sets. `environ` is for the process."""

    def __init__(self, folder: Path) -> None:
        """It is right at first."""
        self._file = folder / "clock"
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set_ahead(0)

    def set_ahead(self, seconds: int) -> None:
        """By how much it is wrong."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._file)
