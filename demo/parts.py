"""The programs that the demo starts: each a real process, with its output in a file, ended by its own pid."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

READY_WITHIN = 15.0
STOPPED_WITHIN = 10.0
LAST_LINES = 12


class WentOtherwise(Exception):
    """Something was not as promised. `detail` helps to find the cause."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


@dataclass(slots=True)
class Program:
    """A child process of the demo."""

    name: str
    process: asyncio.subprocess.Process
    output: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_lines(self) -> str:
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return "\n".join(text.splitlines()[-LAST_LINES:])

    async def kill(self) -> None:
        """End it without warning, like a power failure."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Sends SIGTERM, and returns the exit code. Raises WentOtherwise if it must be killed."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self.process.wait(), STOPPED_WITHIN)
        except TimeoutError:
            await self.kill()
            message = f"{self.name} did not stop within {STOPPED_WITHIN:g} s of SIGTERM and was killed"
            raise WentOtherwise(message, self.last_lines()) from None


async def start(name: str, *arguments: str, folder: Path, ready: Callable[[], Awaitable[bool]]) -> Program:
    """Starts `python -m sidecar <arguments>` and waits until `ready` is true, or raises WentOtherwise."""
    output = folder / f"{name.replace(' ', '-')}.log"
    with output.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sidecar",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=Path(__file__).parents[1],
        )
    program = Program(name, process, output)
    try:
        async with asyncio.timeout(READY_WITHIN):
            while not await ready():
                if process.returncode is not None:
                    message = f"{name} ended at once, with exit code {process.returncode}"
                    raise WentOtherwise(message, program.last_lines())
                await asyncio.sleep(0.02)
    except TimeoutError:
        await program.kill()
        raise WentOtherwise(f"{name} was not ready within {READY_WITHIN:g} s", program.last_lines()) from None
    except BaseException:
        if process.returncode is None:
            await program.kill()
        raise
    return program


def answers(session: aiohttp.ClientSession, url: str) -> Callable[[], Awaitable[bool]]:
    """True when a GET of `url` is answered with 200."""

    async def ready() -> bool:
        try:
            async with session.get(url) as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    return ready


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
