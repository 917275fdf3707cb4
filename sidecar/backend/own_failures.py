"""Failures to connect that are this machine's, and say nothing about the backend."""

from __future__ import annotations

import errno
import os

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})
"""No file descriptor, no memory, no local port."""


def is_ours(error: OSError, *, lookup: bool) -> bool:
    """Whether no connection was made because this machine has too much to do. `lookup`: a name lookup failed; a
    resolver that gets no descriptor gives any error, so the descriptors are looked at."""
    return not _has_descriptor() if lookup else error.errno in _OURS


def _has_descriptor() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
