"""Those who only take up room: slow senders by the hundred, garbage by the thousand. Joins go on meanwhile."""

import asyncio
import contextlib
import json
import random
import statistics
import time
from collections.abc import AsyncIterator

import pytest

from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar

JOIN = json.dumps({"roomName": "standup", "userJid": "ann@example.org", "timestamp": 0})
GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /webhooks/jitsi/validate-access HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
    b"POST /webhooks/jitsi/validate-access HTTP/1.1\r\nHost: x\r\nX: " + b"b" * 70_000 + b"\r\n\r\n",
    b"POST /webhooks/jitsi/validate-access HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + bytes(1000),
    b"\r\n\r\n\r\n",
    b"",
    b"SSH-2.0-OpenSSH_9.2\r\n",
]


@pytest.fixture
async def sidecar(backend: Backend) -> AsyncIterator[Sidecar]:
    async with Sidecar.start(backend.url) as running:
        yield running


def ports(sidecar: Sidecar) -> list[int]:
    """Of the webhooks, and of the admin's."""
    return [sidecar.config[listener]["port"] for listener in ("listen", "admin")]


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def join(port: int) -> float:
    """Seconds until a join is answered with 200."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(JOIN)}\r\nConnection: close"
    writer.write(f"POST /webhooks/jitsi/validate-access HTTP/1.1\r\n{head}\r\n\r\n{JOIN}".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    await gone(writer)
    assert answer.startswith(b"HTTP/1.1 200"), answer[:100]
    return time.monotonic() - begun


async def dribble(port: int) -> float:
    """Send a head byte by byte, as slowly as it may; returns the seconds until the connection is closed."""
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for byte in b"POST /webhooks/jitsi/validate-access HTTP/1.1\r\nHost: x\r\n":
            writer.write(bytes([byte]))
            try:
                async with asyncio.timeout(0.7):
                    if await reader.read(1) == b"":
                        break
            except TimeoutError:
                continue
    except OSError:
        pass
    finally:
        await gone(writer)
    return time.monotonic() - begun


async def test_five_hundred_slow_senders_do_not_delay_joins_and_are_disconnected(sidecar: Sidecar) -> None:
    slow = [asyncio.ensure_future(dribble(port)) for port in ports(sidecar) * 250]
    await asyncio.sleep(1)
    joins = [await join(ports(sidecar)[0]) for _ in range(200)]
    held = await asyncio.gather(*slow)
    print(f"joins: median {statistics.median(joins) * 1e3:.1f} ms, worst {max(joins) * 1e3:.1f} ms, of {len(joins)}")
    print(f"slow senders: ended after {min(held):.1f} to {max(held):.1f} s")
    assert max(joins) < 2
    assert max(held) < 15


async def test_thousands_of_malformed_requests_change_nothing(sidecar: Sidecar) -> None:
    chance = random.Random(1)

    async def throw() -> None:
        for _ in range(500):
            port = chance.choice(ports(sidecar))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(chance.choice(GARBAGE))
                if chance.random() < 0.5:
                    async with asyncio.timeout(0.2):
                        await reader.read(1000)
            except (OSError, TimeoutError):
                continue
            finally:
                await gone(writer)

    throwing = asyncio.gather(*(throw() for _ in range(20)))
    joins = []
    while not throwing.done():
        joins.append(await join(ports(sidecar)[0]))
    await throwing
    print(f"joins: median {statistics.median(joins) * 1e3:.1f} ms, worst {max(joins) * 1e3:.1f} ms, of {len(joins)}")
    assert max(joins) < 2
    await sidecar.end()
