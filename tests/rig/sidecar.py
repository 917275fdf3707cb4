"""The real daemon as a process of its own, on free ports, with a config of the test's.

    async with Sidecar.start(backend.url, {"log": {"level": "debug"}}) as sidecar:
        reply = await sidecar.decides("standup", "alice@example.com")

Leaving the block stops it with SIGTERM, by its process id, and checks that it ended well: exit code 0, no traceback.
`Sidecar.prepared` is for tests that start and kill it themselves, under strace or with a kill placed in it
(tests/rig/killed.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from tests.rig.backend import PREFIX
from tests.rig.ports import free_port, is_listening

ROOT = Path(__file__).parents[2]
DEADLINE = 4.0
START_WITHIN = 30.0
STOP_WITHIN = 20.0
ANSWER_WITHIN = 30.0


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
    """Made by `start` and `prepared`."""

    folder: Path
    config: dict[str, Any]
    environ: dict[str, str]
    session: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls, backend_url: str, settings: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[Self]:
        """One that runs until the end of the block."""
        async with cls.prepared(backend_url, settings, environ) as it:
            await it.run()
            yield it
            await it.end()

    @classmethod
    @asynccontextmanager
    async def prepared(
        cls,
        backend_url: str,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        *,
        on_disk: bool = False,
    ) -> AsyncIterator[Self]:
        """One that does not run yet. What runs of it at the end of the block is killed."""
        with tempfile.TemporaryDirectory(prefix="sidecar-rig-") as name:
            folder = Path(name)
            base = {
                "listen": {"port": free_port()},
                "admin": {"port": free_port()},
                "state_dir": str(folder / "state") if on_disk else None,
                "backend": {"url": backend_url},
            }
            # Prosody opens a connection for every request.
            connector, timeout = aiohttp.TCPConnector(limit=0, force_close=True), aiohttp.ClientTimeout(ANSWER_WITHIN)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                it = cls(folder, merged(base, settings or {}), {**os.environ, **(environ or {})}, session)
                try:
                    yield it
                finally:
                    await it.kill()

    @property
    def file(self) -> Path:
        return self.folder / "sidecar.yaml"

    @property
    def webhooks(self) -> str:
        return f"http://127.0.0.1:{self.config['listen']['port']}{PREFIX}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.config['admin']['port']}"

    @property
    def token(self) -> dict[str, str]:
        """The header that Prosody has to send, if the config names a token."""
        file = self.config["listen"].get("token_file")
        return {"X-Webhook-Secret": Path(file).read_text().splitlines()[0]} if file else {}

    def write(self, settings: Mapping[str, Any] | None = None) -> None:
        """Write the config file, with these changes."""
        self.config = merged(self.config, settings or {})
        self.file.write_text(yaml.safe_dump(self.config))

    async def run(
        self, *, under: Sequence[str] = (), module: str = "sidecar", environ: Mapping[str, str] | None = None
    ) -> None:
        """Start the process and wait until it answers. `under`: a program that runs it, such as strace."""
        self.write()
        with (self.folder / "out").open("ab") as out, (self.folder / "err").open("ab") as err:
            self.process = await asyncio.create_subprocess_exec(
                *under, sys.executable, "-m", module, "run", "--config", str(self.file),
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT,
                env={**self.environ, **(environ or {})}, start_new_session=True,
            )  # fmt: skip
        give_up_at = time.monotonic() + START_WITHIN
        while not await self._answers():
            code = self.process.returncode
            assert code is None, f"it ended at once, with {code}: {self.output()}"
            assert time.monotonic() < give_up_at, f"it does not get ready: {self.output()}"
            await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        """The listener for Prosody is the last one that is opened."""
        try:
            async with self.session.get(self.admin + "/livez") as response:
                return response.status == 200 and is_listening(self.config["listen"]["port"])
        except aiohttp.ClientConnectionError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process, and to what runs it."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    async def kill(self) -> None:
        """As -9 does."""
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            await self.process.wait()

    async def stop(self) -> int:
        """As an operator does; its exit code."""
        assert self.process is not None
        if self.process.returncode is None:
            self.signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), STOP_WITHIN)

    async def end(self) -> None:
        """Stop it, and check that it ended well."""
        code = await self.stop()
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

    async def logged(self, event: str) -> list[dict[str, Any]]:
        """The lines of one kind, also of answers that were just read: its lines are written a moment after them."""
        await asyncio.sleep(0.1)
        return self.log(event)

    def alarms(self) -> list[dict[str, Any]]:
        """The lines of its log that an operator must see."""
        return [line for line in self.log() if line["level"] in ("error", "critical")]

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
        """One request, as Prosody sends it. Raises aiohttp.ClientError where nobody answers."""
        trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        sent = {"Content-Type": "application/json", "traceparent": trace, **self.token, **(headers or {})}
        begun = time.monotonic()
        async with self.session.post(f"{self.webhooks}/{endpoint}", data=body, headers=sent) as response:
            content = await response.read()
            return Reply(response.status, dict(response.headers), content, time.monotonic() - begun, trace)

    async def event(self, endpoint: str, room: str, key: str | None = None, **fields: Any) -> Reply:
        """Something happened in a room."""
        body = json.dumps({"roomName": room, "timestamp": 1, **fields}).encode()
        return await self.post(endpoint, body, {"Idempotency-Key": key} if key else {})

    async def decides(self, room: str, who: str, **fields: Any) -> Reply:
        """May this one come in?"""
        body = {"roomName": room, "userJid": f"{who}/r", "userName": "Somebody", "timestamp": 1, **fields}
        return await self.post("validate-access", json.dumps(body).encode())

    async def configures(self, room: str, **fields: Any) -> Reply:
        """The settings of a room."""
        body = {"roomName": room, "roomJid": f"{room}@conference.example.com", "timestamp": 1, **fields}
        return await self.post("room-created", json.dumps(body).encode())

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """One look at the admin listener."""
        begun = time.monotonic()
        async with self.session.get(self.admin + path, headers=headers) as response:
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
