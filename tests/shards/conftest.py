"""A meeting service, an engine, and sidecars that share it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rig.backend import BY_NAME, Backend
from tests.rig.engine import PROGRAM, EngineProcess
from tests.rig.ports import free_port
from tests.rig.sidecar import Sidecar
from tests.rig.toxic import Toxic

KEY = "0123456789abcdef0123456789abcdef"
CONTROL_KEY = "a-key-of-the-meeting-service"


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend(BY_NAME) as running:
        yield running


@pytest.fixture
async def engine() -> AsyncIterator[EngineProcess]:
    if not PROGRAM:
        pytest.skip("neither redis-server nor valkey-server is installed")
    async with EngineProcess.start() as running:
        yield running


@pytest.fixture
async def proxy(engine: EngineProcess) -> AsyncIterator[Toxic]:
    async with Toxic(engine.port) as running:
        yield running


def takes_orders(folder: Path) -> dict[str, Any]:
    """Settings of a sidecar that takes orders."""
    (folder / "control-token").write_text(CONTROL_KEY)
    (folder / "listen-token").write_text("a-token-for-the-module")
    control = {"port": free_port(), "token_file": str(folder / "control-token")}
    return {"control": control, "listen": {"token_file": str(folder / "listen-token")}}


async def order(sidecar: Sidecar, verb: str, key: str | None = None, **fields: Any) -> tuple[int, Any]:
    """Send an order to this sidecar; its answer."""
    url = f"http://127.0.0.1:{sidecar.config['control']['port']}/control/v1/{verb}"
    headers = {"Authorization": f"Bearer {CONTROL_KEY}", **({"Idempotency-Key": key} if key else {})}
    async with sidecar.session.post(url, json=fields, headers=headers) as response:
        return response.status, await response.json(content_type=None)


@asynccontextmanager
async def shards(backend: Backend, *urls: str, settings: dict[str, Any] | None = None) -> AsyncIterator[list[Sidecar]]:
    """One sidecar for each url of an engine, all in touch."""
    async with AsyncExitStack() as stack:
        started = []
        for url in urls:
            sidecar = await stack.enter_async_context(Sidecar.prepared(backend.url, settings, on_disk=True))
            key = Path(sidecar.folder / "key")
            key.write_text(KEY)
            key.chmod(0o600)
            sidecar.write({"shared": {"url": url, "key_file": str(key)}, **takes_orders(sidecar.folder)})
            await sidecar.run()
            started.append(sidecar)
        for sidecar in started:
            await until(lambda sidecar=sidecar: in_touch(sidecar))  # type: ignore[misc]
        yield started
        for sidecar in started:
            if sidecar.process is not None and sidecar.process.returncode is None:
                await sidecar.end()


async def in_touch(sidecar: Sidecar) -> bool:
    return await sidecar.metric("shared_in_touch") == 1


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> float:
    """Wait for it; returns the seconds it took."""
    begun = time.monotonic()
    while not await true():
        assert time.monotonic() - begun < seconds, "it does not come true"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun
