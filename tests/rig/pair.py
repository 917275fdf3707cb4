"""A demo backend and a sidecar in front of it, each a process of its own, for tests that break things.

async with Pair.start({"endpoints": {...}}) as pair:
    await pair.fault("hang")
    asked = await pair.ask("standup", "alice@example.com")
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from demo.parts import Program, answers, free_ports, start

SECRET = "a-secret-between-two-processes"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of Prosody's, and what came back. `allowed` is None where there was no decision."""

    status: int
    allowed: bool | None
    cache_status: str
    seconds: float


@dataclass(slots=True)
class Pair:
    """Made by `Pair.start`, which also ends both."""

    folder: Path
    session: aiohttp.ClientSession
    listen: int
    admin: int
    backend_port: int
    backend: Program | None = None
    sidecar: Program | None = None

    @classmethod
    @asynccontextmanager
    async def start(cls, settings: Mapping[str, Any]) -> AsyncIterator[Self]:
        """`settings` go into the sidecar's config, beside the addresses and the secret."""
        folder = Path(tempfile.mkdtemp(prefix="prosody-sidecar-pair-"))
        listen, admin, backend_port = free_ports(3)
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_text(SECRET)
        url = f"http://127.0.0.1:{backend_port}/webhooks/jitsi"
        config = {
            "listen": {"port": listen},
            "admin": {"port": admin},
            "state_dir": str(folder / "state"),
            **settings,
            "backend": {"url": url, "secret_file": str(folder / "secret"), **settings.get("backend", {})},
        }
        (folder / "sidecar.yaml").write_text(yaml.safe_dump(config))
        # One connection a question, as Prosody does; so a restart of the sidecar breaks no idle connection.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
                pair = cls(folder, session, listen, admin, backend_port)
                try:
                    await pair.start_backend()
                    await pair.start_sidecar()
                    yield pair
                finally:
                    for program in (pair.sidecar, pair.backend):
                        if program is not None and program.process.returncode is None:
                            await program.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def start_backend(self) -> None:
        ready = answers(self.session, f"http://127.0.0.1:{self.backend_port}/")
        arguments = ("demo-backend", "--port", str(self.backend_port), "--secret", SECRET)
        self.backend = await start("demo backend", *arguments, folder=self.folder, ready=ready)

    async def start_sidecar(self) -> None:
        ready = answers(self.session, f"http://127.0.0.1:{self.admin}/livez")
        config = str(self.folder / "sidecar.yaml")
        self.sidecar = await start("sidecar", "run", "--config", config, folder=self.folder, ready=ready)

    async def kill_backend(self) -> None:
        if self.backend is not None:
            await self.backend.kill()

    async def kill_sidecar(self) -> None:
        if self.sidecar is not None:
            await self.sidecar.kill()

    async def fault(self, kind: str, **fields: object) -> None:
        url = f"http://127.0.0.1:{self.backend_port}/demo/fault"
        async with self.session.post(url, json={"fault": kind, **fields}) as response:
            response.raise_for_status()

    async def backend_state(self) -> dict[str, Any]:
        async with self.session.get(f"http://127.0.0.1:{self.backend_port}/demo/state") as response:
            state: dict[str, Any] = await response.json()
            return state

    async def ask(self, room: str, user: str) -> Asked:
        """May this user come in? Raises aiohttp.ClientError where nobody answers."""
        body = {
            "roomName": room,
            "roomJid": f"{room}@conference.example.com",
            "userJid": user,
            "timestamp": 1,
        }
        url = f"http://127.0.0.1:{self.listen}/webhooks/jitsi/validate-access"
        begun = time.perf_counter()
        async with self.session.post(url, json=body) as response:
            raw = await response.read()
        seconds = time.perf_counter() - begun
        allowed = json.loads(raw).get("allowed") if response.status == 200 else None
        return Asked(response.status, allowed, response.headers.get("Cache-Status", ""), seconds)

    def output(self) -> str:
        """What the sidecar has logged."""
        return (self.folder / "sidecar.log").read_text(errors="replace")
