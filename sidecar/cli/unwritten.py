"""What becomes of output that cannot be written."""

from __future__ import annotations

import errno
import os
import sys
from typing import TextIO

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}


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
