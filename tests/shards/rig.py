"""Sidecars that share an engine, each with a control listener.

async with shards(backend, engine.url, engine.url) as (here, there): ...
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.rig.backend import Backend
from tests.rig.ports import free_port
from tests.rig.sidecar import Sidecar, merged

KEY = "0123456789abcdef0123456789abcdef"
CONTROL_KEY = "a-key-of-the-meeting-service"


@asynccontextmanager
async def shard(
    backend: Backend, url: str, settings: Mapping[str, Any] | None = None, shared: Mapping[str, Any] | None = None
) -> AsyncIterator[Sidecar]:
    """One that runs and may not be in touch yet. `shared`: more settings of this section."""
    async with Sidecar.prepared(backend.url, settings, on_disk=True) as sidecar:
        secrets = {"key": KEY, "token": "a-token-for-the-module", "control-key": CONTROL_KEY}
        for name, text in secrets.items():
            write_secret(sidecar.folder / name, text)
        own = {
            "shared": {"url": url, "key_file": str(sidecar.folder / "key"), **(shared or {})},
            "listen": {"token_file": str(sidecar.folder / "token")},
            "control": {"port": free_port(), "token_file": str(sidecar.folder / "control-key")},
        }
        sidecar.write(merged(own, settings or {}))
        await sidecar.run()
        yield sidecar
        if sidecar.process is not None and sidecar.process.returncode is None:
            await sidecar.end()


@asynccontextmanager
async def shards(
    backend: Backend, *urls: str, settings: Mapping[str, Any] | None = None
) -> AsyncIterator[list[Sidecar]]:
    """One for each url of an engine, all in touch."""
    async with AsyncExitStack() as stack:
        started = [await stack.enter_async_context(shard(backend, url, settings)) for url in urls]
        await all_in_touch(*started)
        yield started


def write_secret(file: Path, text: str) -> None:
    """A file that only its owner can read."""
    file.touch(0o600)
    file.write_text(text)


async def order(sidecar: Sidecar, verb: str, key: str | None = None, **fields: Any) -> tuple[int, Any]:
    """Send an order to this sidecar; its answer."""
    url = f"http://127.0.0.1:{sidecar.config['control']['port']}/control/v1/{verb}"
    headers = {"Authorization": f"Bearer {CONTROL_KEY}", **({"Idempotency-Key": key} if key else {})}
    async with sidecar.session.post(url, json=fields, headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def in_touch(sidecar: Sidecar) -> bool:
    return await sidecar.metric("shared_in_touch") == 1


async def all_in_touch(*sidecars: Sidecar, seconds: float = 15.0) -> float:
    """Wait until all are in touch and have said all they know; returns the seconds it took."""

    async def are() -> bool:
        return all([await in_touch(each) and await all_said(each) for each in sidecars])

    return await until(are, seconds)


async def all_said(sidecar: Sidecar) -> bool:
    """Whether the engine has all denies and changes."""
    return await sidecar.metric("shared_unsaid") == 0


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> float:
    """Wait for it; returns the seconds it took."""
    begun = time.monotonic()
    while not await true():
        assert time.monotonic() - begun < seconds, "it does not come true"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun
