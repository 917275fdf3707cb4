"""One process for each state folder.

The kernel keeps the locks and drops them when the process ends, however it ends. Two are taken: on the file `lock`,
which says who has it, and on the folder itself, because a file that is in the way is deleted sooner or later.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path

from sidecar.errors import StartError
from sidecar.store.file import make_private


class FolderLock:
    """Held from `take` to `release`."""

    def __init__(self, folder: Path, patience: float) -> None:
        """`patience`: seconds to wait for a process that is about to end, as in a restart."""
        self._folder = folder
        self._patience = patience
        self._held: list[int] = []

    async def take(self) -> None:
        """Raises StartError if another process has it; not for a folder that cannot be used: a sidecar works without
        one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._patience
        while not self._try():
            if loop.time() >= until:
                raise StartError(
                    f"another sidecar{self._holder()} uses {self._folder}; stop it, or give each its own state_dir"
                )
            await asyncio.sleep(0.1)

    def release(self) -> None:
        """Let others have it."""
        while self._held:
            os.close(self._held.pop())

    def _try(self) -> bool:
        """False: another process has it."""
        with contextlib.suppress(OSError):
            make_private(self._folder)
        for path, flags in ((self._folder / "lock", os.O_RDWR | os.O_CREAT), (self._folder, os.O_RDONLY)):
            try:
                self._held.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
                fcntl.flock(self._held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.release()
                return False
            except OSError:  # not usable, or a network file system, which cannot lock a folder
                continue
        if self._held:
            with contextlib.suppress(OSError):
                (self._folder / "lock").write_text(f"{os.getpid()}\n")
        return True

    def _holder(self) -> str:
        try:
            return f" (pid {int((self._folder / 'lock').read_text())})"
        except (OSError, ValueError):
            return ""
