"""The real daemon as a process of its own, on free ports, with a config of the test's.

    async with Sidecar.start(backend.url, {"log": {"level": "debug"}}) as sidecar:
        reply = await sidecar.decides("standup", "alice@example.com")

Leaving the block stops it with SIGTERM, by its process id, and checks that it ended well: exit code 0, no traceback.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

PREFIX = "/webhooks/jitsi"
DEADLINE = 4.0
START_WITHIN = 30.0
STOP_WITHIN = 20.0


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested configs in one; the second goes before."""
    result = dict(base)
    for name, value in more.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = merged(result[name], value) if both else value
    return result


@dataclass(frozen=True, slots=True)
class Reply:
    """What Prosody would get."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float
    sent_trace: str = ""

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def allowed(self) -> bool | None:
        """The decision; None where there is none."""
        if self.status != 200:
            return None
        value = self.document.get("allowed")
        return value if isinstance(value, bool) else None

    @property
    def cache_status(self) -> str:
        return self.headers.get("Cache-Status", "")

    @property
    def trace(self) -> str:
        """The part of the traceparent that its line in the log has."""
        return self.sent_trace[3:35]

    @property
    def asked(self) -> bool:
        """Whether the backend was asked for this answer."""
        return "fwd=" in self.cache_status


@dataclass
class Sidecar:
    """Made by `start`."""

    folder: Path
    config: dict[str, Any]
    environ: dict[str, str]
    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None
    killed: bool = False
    tolerated: list[str] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def start(
        cls, backend_url: str, settings: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[Self]:
        """Run one until the end of the block."""
        base = {
            "listen": {"port": free_port()},
            "admin": {"port": free_port()},
            "state_dir": None,
            "backend": {"url": backend_url},
        }
        with tempfile.TemporaryDirectory(prefix="sidecar-rig-") as folder:
            # Prosody opens a connection for every request.
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            async with aiohttp.ClientSession(connector=connector) as session:
                it = cls(Path(folder), merged(base, settings or {}), {**os.environ, **(environ or {})}, session)
                try:
                    await it.run()
                    yield it
                    await it.end()
                finally:
                    if it.process is not None and it.process.returncode is None:
                        it.process.kill()
                        await it.process.wait()

    @property
    def file(self) -> Path:
        return self.folder / "sidecar.yaml"

    @property
    def webhooks(self) -> str:
        return f"http://127.0.0.1:{self.config['listen']['port']}{PREFIX}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.config['admin']['port']}"

    def write(self, settings: Mapping[str, Any] | None = None) -> None:
        """Write the config file, with these changes."""
        self.config = merged(self.config, settings or {})
        self.file.write_text(yaml.safe_dump(self.config))

    async def run(self) -> None:
        """Start the process and wait until it answers."""
        self.write()
        with (self.folder / "out").open("ab") as out, (self.folder / "err").open("ab") as err:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar", "run", "--config", str(self.file),
                stdout=out, stderr=err, env=self.environ,
            )  # fmt: skip
        give_up_at = time.monotonic() + START_WITHIN
        while True:
            if self.process.returncode is not None:
                raise AssertionError(f"it ended at once, with {self.process.returncode}: {self.output()}")
            try:
                async with self.session.get(self.admin + "/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            assert time.monotonic() < give_up_at, f"it does not get ready: {self.output()}"
            await asyncio.sleep(0.03)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process."""
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self) -> None:
        """Stop it, and check that it ended well."""
        assert self.process is not None
        if not self.killed:
            if self.process.returncode is None:
                self.signal(signal.SIGTERM)
            code = await asyncio.wait_for(self.process.wait(), STOP_WITHIN)
            assert code == 0, f"exit code {code}: {self.output()[-2000:]}"
        assert "Traceback" not in self.output(), self.output()[-4000:]

    def output(self) -> str:
        """All it has written, to standard output and standard error."""
        return "".join(
            (self.folder / name).read_text(errors="replace") for name in ("out", "err") if (self.folder / name).exists()
        )

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of its log, of one kind if so wanted."""
        lines = [json.loads(line) for line in (self.folder / "out").read_text().splitlines()]
        return [line for line in lines if event is None or line["event"] == event]

    async def until_logged(self, event: str, seconds: float = 5.0) -> dict[str, Any]:
        """Wait for a line that begins so."""
        give_up_at = time.monotonic() + seconds
        while True:
            for line in self.log():
                if line["event"].startswith(event):
                    return line
            assert time.monotonic() < give_up_at, f"no line says {event!r}: {self.output()[-2000:]}"
            await asyncio.sleep(0.02)

    async def post(self, endpoint: str, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        """One request, as Prosody sends it."""
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        sent = {"Content-Type": "application/json", "traceparent": trace, **(headers or {})}
        begun = time.monotonic()
        async with self.session.post(f"{self.webhooks}/{endpoint}", data=body, headers=sent) as response:
            content = await response.read()
            return Reply(response.status, dict(response.headers), content, time.monotonic() - begun, trace)

    async def decides(self, room: str, who: str, **fields: Any) -> Reply:
        """May this one come in?"""
        body = {"roomName": room, "userJid": f"{who}/r", "userName": "Somebody", "timestamp": 1, **fields}
        return await self.post("validate-access", json.dumps(body).encode())

    async def configures(self, room: str, **fields: Any) -> Reply:
        """The settings of a room."""
        body = {"roomName": room, "roomJid": f"{room}@conference.example.com", "timestamp": 1, **fields}
        return await self.post("room-created", json.dumps(body).encode())

    async def get(self, path: str) -> Reply:
        """One look at the admin listener."""
        begun = time.monotonic()
        async with self.session.get(self.admin + path) as response:
            content = await response.read()
            return Reply(response.status, dict(response.headers), content, time.monotonic() - begun)

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels."""
        total = 0.0
        for line in (await self.get("/metrics")).body.decode().splitlines():
            series, _, value = line.rpartition(" ")
            base, _, found = series.partition("{")
            if base == f"prosody_sidecar_{name}" and all(f'{key}="{text}"' in found for key, text in labels.items()):
                total += float(value)
        return total

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command of the CLI against this daemon; its exit code and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar", *arguments, "--config", str(self.file),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=self.environ,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that was not expected to stay."""

    code: int
    out: str
    err: str


async def run_to_the_end(*arguments: str, environ: Mapping[str, str] | None = None, seconds: float = 20.0) -> Ended:
    """Run a command that should end by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sidecar", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **(environ or {})},
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())
