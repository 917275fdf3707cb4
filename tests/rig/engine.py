"""A real Redis or Valkey as a process of its own, on a free port of 127.0.0.1, with nothing on disk.

    async with EngineProcess.start() as engine:
        async with engine.replica() as replica: ...

It is stopped and killed by its process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.rig.ports import free_port

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server") or ""


@dataclass
class EngineProcess:
    """Made by `start`."""

    port: int
    folder: Path
    arguments: tuple[str, ...] = ()
    process: asyncio.subprocess.Process | None = None

    @classmethod
    @asynccontextmanager
    async def start(cls, *arguments: str) -> AsyncIterator[Self]:
        """One that runs until the end of the block."""
        with tempfile.TemporaryDirectory(prefix="engine-rig-") as name:
            it = cls(free_port(), Path(name), arguments)
            try:
                await it.run()
                yield it
            finally:
                await it.kill()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def run(self) -> None:
        """Start it, and wait until it answers."""
        self.process = await asyncio.create_subprocess_exec(
            PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder),
            "--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes", *self.arguments,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(500):
            with contextlib.suppress(RedisError, OSError):
                await self.order("PING")
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the engine does not answer")

    async def order(self, *words: str | int | float) -> Any:
        """One command, on a connection of its own."""
        client = Redis(host="127.0.0.1", port=self.port, socket_timeout=5)
        try:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    async def kill(self) -> None:
        """As -9 does."""
        if self.process is not None and self.process.returncode is None:
            self.signal(signal.SIGKILL)
            await self.process.wait()

    @asynccontextmanager
    async def replica(self) -> AsyncIterator[EngineProcess]:
        """Another one that follows this one."""
        async with EngineProcess.start("--replicaof", f"127.0.0.1 {self.port}") as replica:
            for _ in range(500):
                if b"master_link_status:up" in await _replication(replica):
                    break
                await asyncio.sleep(0.02)
            yield replica


async def _replication(engine: EngineProcess) -> bytes:
    client = Redis(host="127.0.0.1", port=engine.port, socket_timeout=5)
    try:
        return b"\n".join(f"{name}:{value}".encode() for name, value in (await client.info("replication")).items())
    finally:
        await client.aclose()
