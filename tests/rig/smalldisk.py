"""A file system of its own that can be filled, made read-only, and taken away again: in memory, or ext4 in a file."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 1024 * 1024


class SmallDisk:
    """A mounted file system. Needs root, or sudo that asks nothing."""

    def __init__(self, folder: Path) -> None:
        """`folder` is where it is mounted."""
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, but: int = 0) -> None:
        """Leave not one block, or so many bytes."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(MEBIBYTE))
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        os.truncate(self._filler, self._filler.stat().st_size - but)

    def free(self) -> int:
        """Bytes that are free."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def empty(self) -> None:
        """Give the blocks back."""
        self._filler.unlink()

    def read_only(self, yes: bool) -> None:
        """What a kernel does to a disk with errors. Files open for writing are no obstacle to it, as in real life."""
        _run("mount", "-o", f"remount,{'ro' if yes else 'rw'}", str(self.folder))


@contextlib.contextmanager
def small_disk(folder: Path, size: int, kind: str = "tmpfs") -> Iterator[SmallDisk]:
    """Mount a tmpfs or an ext4; unmount it in the end, whoever still holds files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "tmpfs":
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700,uid={os.getuid()}", "tmpfs", str(folder))
    else:
        image = folder.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(size)
        _run("mkfs.ext4", "-q", "-m", "0", "-E", f"root_owner={os.getuid()}:{os.getgid()}", str(image))
        _run("mount", "-o", "loop", str(image), str(folder))
    try:
        yield SmallDisk(folder)
    finally:
        _run("umount", "-l", str(folder))


def as_root(*command: str) -> list[str]:
    """The command line that does this as root."""
    return [*(() if os.geteuid() == 0 else ("sudo", "-n")), *command]


def _run(*command: str) -> None:
    subprocess.run(as_root(*command), check=True, capture_output=True)
