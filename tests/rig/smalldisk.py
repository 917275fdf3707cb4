"""A file system of its own that can be filled, made read-only, and taken away again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 1024 * 1024


class SmallDisk:
    """A mounted tmpfs. Needs root, or sudo that asks nothing."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where it is mounted."""
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave not one block."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(MEBIBYTE))
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        """Give the blocks back."""
        self._filler.unlink()

    def read_only(self, yes: bool) -> None:
        """What a kernel does to a disk with errors. Files open for writing are no obstacle to it, as in real life."""
        _run("mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.folder))


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[SmallDisk]:
    """Mount it; unmount it in the end, whoever still holds files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700,uid={os.getuid()}", "tmpfs", str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        _run("umount", "-l", str(folder))


def as_root(*command: str) -> list[str]:
    """The command line that does this as root."""
    return [*(() if os.geteuid() == 0 else ("sudo", "-n")), *command]


def _run(*command: str) -> None:
    subprocess.run(as_root(*command), check=True, capture_output=True)
