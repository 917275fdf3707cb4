"""System calls that fail or take their time: strace's fault injection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from tests.rig.smalldisk import as_root


def under(fault: str) -> list[str]:
    """A command that runs another one whose system calls fail from the start, such as `pread64:delay_enter=40000`."""
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={fault.partition(':')[0]}", "-e", f"inject={fault}"]


@contextlib.asynccontextmanager
async def injected(pid: int, fault: str) -> AsyncIterator[None]:
    """While this lasts, system calls of the process fail as strace is asked to let them."""
    strace = await asyncio.create_subprocess_exec(
        *as_root(*under(fault), "-p", str(pid)), stderr=asyncio.subprocess.PIPE
    )
    status = Path(f"/proc/{pid}/status")
    async with asyncio.timeout(10.0):
        while "TracerPid:\t0\n" in status.read_text():
            assert strace.returncode is None, await strace.stderr.read() if strace.stderr else ""
            await asyncio.sleep(0.02)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(strace.pid, signal.SIGTERM)
        await strace.wait()
