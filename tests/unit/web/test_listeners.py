"""Listeners on real sockets, with many connections."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from sidecar.clock import SystemClock
from sidecar.web.connections import Connections
from sidecar.web.listeners import AT_A_TIME, Address, listen, webhook_runner
from tests.rig.ports import free_port
from tests.unit.daemon.builders import a_sidecar

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("by_systemd", [False, True])
async def test_in_a_burst_the_first_are_answered_before_all_have_been_read(*, by_systemd: bool) -> None:
    begun = 0
    begun_at_the_ends: list[int] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        nonlocal begun
        begun += 1
        for _ in range(3):
            await asyncio.sleep(0)  # as many turns of the event loop as a decision from the cache and an answer need
        begun_at_the_ends.append(begun)
        return web.Response()

    runner, address = web.ServerRunner(web.Server(handle)), Address("listen", "127.0.0.1", free_port())
    passed = {"webhook": socket.create_server((address.host, address.port))} if by_systemd else {}
    async with AsyncExitStack() as stack:
        await listen(stack, runner, address, passed, Connections(SystemClock()), lambda fact: None)
        clients = [
            socket.create_connection((address.host, address.port)) for _ in range(500)
        ]  # the kernel accepts them
        for client in clients:
            client.sendall(REQUEST)
        while len(begun_at_the_ends) < len(clients):
            await asyncio.sleep(0.01)
        for client in clients:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
            client.close()
    assert begun_at_the_ends[0] <= 8 * AT_A_TIME


def alive() -> int:
    """Connections of servers that are still in memory."""
    gc.collect()
    return sum(isinstance(each, web.RequestHandler) for each in gc.get_objects())


async def test_nothing_is_kept_of_connections_that_have_ended() -> None:
    parts, before = a_sidecar(), alive()
    watched, address = parts.connections["listen"], Address("listen", "127.0.0.1", free_port())
    runner = webhook_runner(parts.webhooks, parts.links, watched, 1.0)
    async with AsyncExitStack() as stack:
        await listen(stack, runner, address, {}, watched, lambda fact: None)
        for _ in range(10):
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(REQUEST)
            assert (await reader.read()).startswith(b"HTTP/1.1 404")
            writer.close()
            await writer.wait_closed()
        assert alive() - before <= 1  # the last one may just be ending
