"""Lines on standard output. The lines of one turn of the event loop are one write."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

MOST_WAITING = 200
"""Lines that wait for the end of a turn; one more is not waited for."""

PRIORITIES = {"debug": "<7>", "warning": "<4>", "error": "<3>"}
"""What the journal takes from the beginning of a line (sd-daemon(3)), for `journalctl -p warning`. A line without has
the priority info."""


class NonBlockingOutput:
    """A file, or the writing end of a pipe or socket. A write never waits for the reader: a log collector that hangs
    must not stop the sidecar. Lines that do not fit are lost; never a part of a line."""

    encoding = "utf-8"

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._rest = b""

    def write(self, lines: str) -> None:
        """Write lines, or raise OSError."""
        if self._rest:
            self._write(b"")
        if self._rest:
            raise BlockingIOError
        self._write(lines.encode())

    def _write(self, data: bytes) -> None:
        written = os.write(self._descriptor, self._rest + data)
        self._rest = (self._rest + data)[written:]  # the rest of partly written lines comes before the next ones

    def flush(self) -> None:
        """Only the rest of partly written lines is kept."""

    def fileno(self) -> int:
        """The number of the file."""
        return self._descriptor

    def isatty(self) -> bool:
        """It is not a terminal."""
        return False


def standard_output() -> TextIO | NonBlockingOutput:
    """The process' own output."""
    try:
        descriptor = sys.stdout.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError):
        return sys.stdout
    direct = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISREG(mode)
    return NonBlockingOutput(descriptor) if direct else sys.stdout


def is_the_journal(stream: TextIO | NonBlockingOutput, environ: Mapping[str, str]) -> bool:
    """Whether systemd reads this stream for its journal: $JOURNAL_STREAM names its device and inode."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class Lines:
    """A stream that may fail: nothing is raised; lost lines are counted, and reported when writing works again."""

    def __init__(self, stream: TextIO | NonBlockingOutput, report: Callable[[int], str]) -> None:
        """`report` makes the line that says how many lines were lost."""
        self._stream = stream
        self._report = report
        self._waiting: list[str] = []
        self._lost = 0

    def soon(self, line: str) -> None:
        """Write a line with the others of this turn of the event loop. A process that is killed in it loses them."""
        waiting = self._waiting
        waiting.append(line)
        if len(waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.write)
            except RuntimeError:  # no loop runs
                self.write()
        elif len(waiting) > MOST_WAITING:
            self.write()

    def now(self, line: str) -> None:
        """Write a line, after those that wait."""
        self._waiting.append(line)
        self.write()

    def write(self) -> None:
        """Write the lines that wait."""
        lines, self._waiting = self._waiting, []
        if lines and self._is_written(lines) and self._lost:
            lost, self._lost = self._lost, 0
            if not self._is_written([self._report(lost)]):
                self._lost = lost

    def _is_written(self, lines: list[str]) -> bool:
        text = "\n".join([*lines, ""])
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "utf-8"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stream.flush()
        except (OSError, ValueError):  # a full disk, a reader that has ended, a closed stream
            self._lost += len(lines)
            return False
        return True
