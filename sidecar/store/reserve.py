"""Space that is kept on the disk for the moment when it is full.

A delivered event can only be deleted if the deletion can be written. On a full disk, the reserve is given up for that,
and taken again as soon as there is space. New events are accepted only while it is there.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class Reserve:
    """A file of that many bytes, with blocks behind it; nobody reads it."""

    def __init__(self, path: Path, size: int) -> None:
        """Nothing is taken yet."""
        self._path = path
        self._size = size

    def take(self, beside: int = 0) -> bool:
        """Whether the space is taken now, or was before, and the disk has so many bytes more."""
        try:
            held = self._held()
            if held + _free(self._path.parent) < self._size + beside:
                return False
            return held >= self._size or self._allocate()
        except OSError:
            return False

    def give_up(self) -> None:
        """Let others write there. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.truncate(self._path, 0)

    def _held(self) -> int:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return 0
        return min(status.st_size, status.st_blocks * 512)

    def _allocate(self) -> bool:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, self._size)
        except OSError:
            os.ftruncate(handle, 0)
            return False
        finally:
            os.close(handle)
        return True


def is_full(folder: Path) -> bool:
    """Whether the disk has no space for the index of a log (32 KiB) and a few pages."""
    try:
        return _free(folder) < 64 * 1024
    except OSError:
        return False


def can_share_memory(folder: Path) -> bool:
    """Whether a file there can be memory that is shared. SQLite writes one byte into each page of such a file, which
    allocates one block. If a page has several blocks, the others are allocated when the memory is written to, and on a
    full disk the kernel then kills the process (SIGBUS)."""
    return os.statvfs(folder).f_frsize >= os.sysconf("SC_PAGE_SIZE")


def volume(folder: Path) -> int:
    """Bytes of the file system. Raises OSError."""
    status = os.statvfs(folder)
    return status.f_blocks * status.f_frsize


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize
