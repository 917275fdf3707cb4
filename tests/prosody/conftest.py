"""Real Prosody, both versions, one server for all tests that want the same options.

A test asks for `prosody` (a server, and the meeting service that its module asks), or for `start_prosody` to have one
with other options.
After each test the server's log must hold no traceback.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from tests.rig.backend import Backend
from tests.rig.prosody import VERSIONS, Prosody, why_missing

NOT_TESTED = {v: why for v in VERSIONS[1:] if (why := why_missing(v))}
GATE = 'module:shared("/*/muc_webhook/guards")["conference.localhost"].gate'
"""The gate, in Lua."""

TRACEBACK = re.compile(r"Traceback|attempt to |stack traceback|error in callback", re.IGNORECASE)


@dataclass(slots=True)
class Server(Prosody):
    """A running Prosody, and the meeting service that its module asks."""

    backend: Backend = field(init=False)
    test_began: int = 0
    """Where the log was then."""

    async def link_up(self) -> None:
        """Makes the backend a sidecar, and waits for the module's link to it."""
        self.backend.is_sidecar = True
        await self.reload()  # else it would wait before it tries again
        await eventually(lambda: self.module(f"return {GATE}.parts.link.is_up()"), True)

    def log_of_test(self) -> str:
        """What Prosody logged since the test began."""
        return self.log_since(self.test_began)

    def log_is_read(self) -> None:
        """The errors that the log holds so far are meant to be there."""
        self.test_began = self.mark()


StartProsody = Callable[..., Awaitable[Server]]


class Pool:
    """Starts servers when they are first wanted and keeps them until the end of the run."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._servers: dict[str, Server] = {}

    async def get(self, version: str, **start: Any) -> Server:
        """The server with these options."""
        key = repr((version, sorted(start.items())))
        if key not in self._servers:
            self._servers[key] = await self.start(self._stack, version, **start)
        return self._servers[key]

    @staticmethod
    async def start(stack: AsyncExitStack, version: str, **start: Any) -> Server:
        """One that ends with the stack."""
        backend = await stack.enter_async_context(Backend())
        server = await stack.enter_async_context(Server.start(version=version, **{"webhook_url": backend.url, **start}))
        server.backend = backend
        return server


@pytest.fixture(scope="session", params=[v for v in VERSIONS if v not in NOT_TESTED])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pool() -> AsyncIterator[Pool]:
    async with AsyncExitStack() as stack:
        yield Pool(stack)


@pytest_asyncio.fixture(loop_scope="session")
async def start_prosody(pool: Pool, version: str) -> AsyncIterator[StartProsody]:
    """Gives a server with these arguments for `Prosody.start`; `fresh=True` for one that no other test uses."""
    used: list[Server] = []
    async with AsyncExitStack() as own:

        async def give(fresh: bool = False, **start: Any) -> Server:
            server = await (pool.start(own, version, **start) if fresh else pool.get(version, **start))
            if server not in used:
                server.backend.begin_again()
                server.test_began = server.mark()
                used.append(server)
            return server

        yield give
        logs = [server.log_of_test() for server in used]
    for log in logs:
        bad = TRACEBACK.search(log)
        assert bad is None, f"Prosody's log holds an error:\n{log[max(0, bad.start() - 2000) : bad.end() + 2000]}"


@pytest_asyncio.fixture(loop_scope="session")
async def prosody(start_prosody: StartProsody) -> Server:
    """The server with the module's defaults."""
    return await start_prosody()


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room that no other test uses."""
    name: str = request.node.name
    short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50]
    return f"{short}-{zlib.crc32(request.node.nodeid.encode()):08x}"


async def eventually(look: Callable[[], Awaitable[Any]], expected: object, within: float = 5.0) -> None:
    """Waits for something in the server that no event announces."""
    async with asyncio.timeout(within):
        while await look() != expected:
            await asyncio.sleep(0.01)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for version, why in NOT_TESTED.items():
        terminalreporter.write_sep("!", f"Prosody {version} was NOT TESTED: {why}", red=True, bold=True)
