"""A meeting service that writes everything down, and a sidecar in front of it that can be killed at any point.

The service lives in the test's own process, so that nothing it has seen is lost; the sidecar is a process of its own,
begun as `python -m sidecar`, under strace, or with a kill placed in it (tests/rig/killed.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from demo.parts import answers, free_ports

ROOT = Path(__file__).parents[2]
READY_WITHIN = 15.0
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """One event as it arrived."""

    endpoint: str
    room: str
    key: str
    body: Body


@dataclass(slots=True)
class Ledger:
    """The service. `decide` and `refuse` are how a test makes it behave."""

    decide: Callable[[Body], bool] = lambda body: True
    refuse: Callable[[Body], int | None] = lambda body: None
    """A status to answer an event with instead of taking it."""
    told: list[Told] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    hanging: set[str] = field(default_factory=set)
    port: int = 0
    _runner: web.ServerRunner | None = None

    async def open(self) -> None:
        """Listen on `port`."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024, reuse_address=True).start()

    async def close(self) -> None:
        """Be gone: connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        endpoint = request.path.rpartition("/")[2]
        body = json.loads(await request.read())
        self.asked[endpoint] += 1
        key = request.headers.get("Idempotency-Key")
        if body["roomName"] in self.hanging:
            await asyncio.sleep(3600)
        if key is not None:
            if (status := self.refuse(body)) is not None:
                return web.json_response({"error": "not this one"}, status=status)
            self.told.append(Told(endpoint, body["roomName"], key, body))
            return web.Response(status=204)
        if endpoint == "room-created":
            return web.json_response({"moderated": True})
        return web.json_response({"allowed": self.decide(body), "reason": None})

    def first_arrivals(self, room: str) -> list[Told]:
        """What a room was told, without what was repeated."""
        seen: dict[str, Told] = {}
        for told in self.told:
            if told.room == room:
                seen.setdefault(told.key, told)
        return list(seen.values())


@dataclass(frozen=True, slots=True)
class Answered:
    """What the sidecar said."""

    status: int
    body: Body
    cache_status: str
    seconds: float
    retry_after: str = ""


@dataclass(slots=True)
class Sidecar:
    """The process, its addresses and its folder; made by `sidecar()`."""

    folder: Path
    listen: int
    admin: int
    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None

    @property
    def state(self) -> Path:
        """Its state folder."""
        return self.folder / "state"

    async def start(
        self, *, under: Sequence[str] = (), module: str = "sidecar", environ: dict[str, str] | None = None
    ) -> None:
        """Begin it, and wait until it answers. `under`: a program that runs it, such as strace."""
        command = (*under, sys.executable, "-m", module, "run", "--config", str(self.folder / "sidecar.yaml"))
        with (self.folder / "sidecar.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        ready = answers(self.session, f"http://127.0.0.1:{self.admin}/livez")
        async with asyncio.timeout(READY_WITHIN):
            while not await ready():
                assert self.process.returncode is None, self.log()
                await asyncio.sleep(0.005)

    async def kill(self) -> None:
        """As -9 does, and whatever runs it too."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()

    async def ended(self, within: float = 10.0) -> int:
        """Wait until it has ended by itself; its exit code."""
        assert self.process is not None
        async with asyncio.timeout(within):
            return await self.process.wait()

    async def stop(self) -> int:
        """As an operator does; its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        return await self.ended()

    async def post(self, endpoint: str, body: Body, key: str | None = None) -> Answered:
        """What Prosody does. Raises aiohttp.ClientError where nobody answers."""
        headers = {"Idempotency-Key": key} if key else {}
        begun = time.perf_counter()
        url = f"http://127.0.0.1:{self.listen}/webhooks/jitsi/{endpoint}"
        async with self.session.post(url, json={"timestamp": 1, **body}, headers=headers) as response:
            raw = await response.read()
        return Answered(
            response.status,
            json.loads(raw),
            response.headers.get("Cache-Status", ""),
            time.perf_counter() - begun,
            response.headers.get("Retry-After", ""),
        )

    async def join(self, room: str, user: str) -> Answered:
        """May this user come in?"""
        return await self.post("validate-access", {"roomName": room, "userJid": user})

    async def look(self, path: str) -> tuple[int, str]:
        """What the admin listener says."""
        async with self.session.get(f"http://127.0.0.1:{self.admin}{path}") as response:
            return response.status, await response.text()

    async def metric(self, name: str) -> float:
        """One gauge without labels."""
        _, text = await self.look("/metrics")
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    def log(self) -> str:
        """What it has written."""
        return (self.folder / "sidecar.log").read_text(errors="replace")

    def alarms(self) -> list[Body]:
        """The lines of its log that an operator must see."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("level") in ("error", "critical")]


@contextlib.asynccontextmanager
async def sidecar(settings: Body, ledger: Ledger) -> AsyncIterator[Sidecar]:
    """A sidecar that is not begun yet, in front of a ledger that listens; both are ended."""
    folder = Path(tempfile.mkdtemp(prefix="prosody-sidecar-ledger-"))
    listen, admin, port = free_ports(3)
    config = {
        "listen": {"port": listen},
        "admin": {"port": admin},
        "state_dir": str(folder / "state"),
        **settings,
        "backend": {"url": f"http://127.0.0.1:{port}/webhooks/jitsi", **settings.get("backend", {})},
    }
    (folder / "sidecar.yaml").write_text(yaml.safe_dump(config))
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
            ledger.port = port
            await ledger.open()
            made = Sidecar(folder, listen, admin, session)
            try:
                yield made
            finally:
                if made.process is not None and made.process.returncode is None:
                    await made.kill()
                await ledger.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
