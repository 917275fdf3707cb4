"""A real Redis or Valkey as a process of its own, on a free port of 127.0.0.1, with nothing on disk.

    async with EngineProcess.start() as engine:
        async with engine.replica() as replica: ...

`SHARDS_ENGINE=valkey` takes the Valkey of Debian 13, from the folder that tools/valkey.sh makes. It is stopped and
killed by its process id.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.rig.ports import free_port

CHROOT = Path(__file__).resolve().parents[2] / ".cache" / "valkey"
IN_CHROOT = os.environ.get("SHARDS_ENGINE") == "valkey"
PROGRAM = "valkey-server" if IN_CHROOT else shutil.which("redis-server") or shutil.which("valkey-server") or ""


def why_missing() -> str | None:
    """Why the engine cannot be started here, or None if it can."""
    if not IN_CHROOT:
        return None if PROGRAM else "neither redis-server nor valkey-server is installed"
    if not (CHROOT / "usr/bin/valkey-server").exists():
        return "there is no .cache/valkey (tools/valkey.sh makes it)"
    return None if os.geteuid() == 0 else "a chroot needs root"


@dataclass
class EngineProcess:
    """Made by `start`."""

    port: int
    folder: Path
    arguments: tuple[str, ...] = ()
    process: asyncio.subprocess.Process | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """How `order` connects, such as with a user."""
    environ: dict[str, str] = field(default_factory=dict)
    """More of the environment of the process."""

    @classmethod
    @asynccontextmanager
    async def start(cls, *arguments: str) -> AsyncIterator[Self]:
        """One that runs until the end of the block."""
        async with cls.prepared(*arguments) as it:
            await it.run()
            yield it

    @classmethod
    @asynccontextmanager
    async def prepared(cls, *arguments: str) -> AsyncIterator[Self]:
        """One that does not run yet, and is killed at the end of the block."""
        parent = CHROOT / "tmp" if IN_CHROOT else None
        with tempfile.TemporaryDirectory(prefix="engine-rig-", dir=parent) as name:
            it = cls(free_port(), Path(name).resolve(), arguments)
            try:
                yield it
            finally:
                await it.kill()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def seen(self, file: Path) -> str:
        """The path of a file as the engine sees it."""
        return f"/{file.relative_to(CHROOT.resolve())}" if IN_CHROOT else str(file)

    async def run(self) -> None:
        """Start it, and wait until it answers."""
        chroot = ("chroot", str(CHROOT.resolve())) if IN_CHROOT else ()
        self.process = await asyncio.create_subprocess_exec(
            *chroot, PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", self.seen(self.folder), "--repl-diskless-sync-delay", "0", "--enable-debug-command", "yes",
            *self.arguments, env={**os.environ, **self.environ},
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with contextlib.suppress(RedisError, OSError):
                await self.order("PING")
                return
            assert self.process.returncode is None, f"the engine ended at once, with {self.process.returncode}"
            await asyncio.sleep(0.02)
        raise AssertionError("the engine does not answer")

    async def order(self, *words: str | int | float | bytes) -> Any:
        """One command, on a connection of its own."""
        client = Redis(host="127.0.0.1", port=self.port, socket_timeout=5, **self.options)
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
        """Another one that follows this one, until it is promoted or starts again."""
        async with EngineProcess.start() as replica:
            await replica.order("REPLICAOF", "127.0.0.1", self.port)
            for _ in range(500):
                if (await replica.info("replication")).get("master_link_status") == "up":
                    break
                await asyncio.sleep(0.02)
            yield replica

    async def info(self, section: str) -> dict[str, Any]:
        """A part of what it says about itself."""
        client = Redis(host="127.0.0.1", port=self.port, socket_timeout=5, **self.options)
        try:
            return dict(await client.info(section))
        finally:
            await client.aclose()
