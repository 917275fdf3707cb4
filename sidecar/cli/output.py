"""What the commands print, on an output that may be closed (`| head`) or full (`> /dev/full`)."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, TextIO

from rich.console import Console

from sidecar.errors import SidecarError

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


class Output(Console):
    """Without colours where there is no terminal, or with NO_COLOR.

    Who closes a pipe has read enough: the rest is not printed, and the exit code is the same as without a pipe.
    """

    def __init__(self, **options: Any) -> None:
        """Colours only where rich would have them by default: no marks for numbers and names."""
        super().__init__(highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Print nothing more."""
        self.quiet = True
        discard()

    def print(self, *objects: Any, **options: Any) -> None:
        """Raises SidecarError if the output cannot be written."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            discard()
            raise SidecarError(unwritable(error)) from None


def unwritable(error: OSError) -> str:
    """What an operator reads about it."""
    return f"the output cannot be written: {error.strerror}"


def is_of_output(error: OSError) -> bool:
    """Whether an output could not be written: an error of a file names it, and an output has no name."""
    return error.errno in _OF_WRITING and error.filename is None


def discard_unwritten() -> None:
    """Discard what the outputs hold and cannot write: Python would try it again when it ends, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            discard(stream)


def discard(stream: TextIO | None = None) -> None:
    """Let what this output still holds, and all that follows, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, (stream or sys.stdout).fileno())
    os.close(nowhere)
