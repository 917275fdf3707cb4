"""Real browsers with a real lib-jitsi-meet, against real Prosodys with a stand-in for jicofo.

A test asks for `meet`: `prosody = await meet()` starts a server like `start_prosody`, with jicofo, and
`await meet.user(transport="bosh")` opens a page that is connected to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.browser import chromium as browser
from tests.browser import meeting
from tests.browser.chromium import Chromium
from tests.browser.jicofo import Jicofo
from tests.browser.meeting import User
from tests.prosody.conftest import Server, StartProsody, pool, room, start_prosody, version

__all__ = ["pool", "room", "start_prosody", "version"]

MISSING = browser.why_missing() or meeting.why_missing()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Chromium]:
    if MISSING:
        pytest.skip(MISSING)
    async with Chromium.start() as started:
        yield started


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def page() -> AsyncIterator[str]:
    async with meeting.serving_pages() as address:
        yield address


class Meet:
    """A server with jicofo, and the pages that are open in a test."""

    def __init__(self, stack: AsyncExitStack, chromium: Chromium, page: str, start: StartProsody) -> None:
        self._stack, self._chromium, self._page, self._start = stack, chromium, page, start
        self.server: Server
        self.jicofo: Jicofo

    async def __call__(self, **start: Any) -> Server:
        """Starts the server, with these arguments of `Prosody.start`."""
        self.server = await self._start(**start)
        self.jicofo = await self._stack.enter_async_context(Jicofo.start(self.server))
        return self.server

    async def user(self, page: str = "", **how: str) -> User:
        """Somebody with a page of their own; `transport` and `design` as `user_in_a_page` has them."""
        opened = meeting.user_in_a_page(self._chromium, self._page + page, self.server, **how)
        return await self._stack.enter_async_context(opened)


@pytest_asyncio.fixture(loop_scope="session")
async def meet(chromium: Chromium, page: str, start_prosody: StartProsody) -> AsyncIterator[Meet]:
    async with AsyncExitStack() as stack:
        yield Meet(stack, chromium, page, start_prosody)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MISSING:
        terminalreporter.write_sep("!", f"The browser was NOT TESTED: {MISSING}", red=True, bold=True)
