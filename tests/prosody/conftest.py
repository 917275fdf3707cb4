"""Real Prosody, both versions, one server for all tests that want the same options.

A test asks for `stage` (a server and the meeting service it asks), or for `stages` to have one with other
options.
After each test the server's log must hold no traceback.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.rig.prosody import VERSIONS, Prosody, why_missing
from tests.rig.webhook import Webhook

NOT_TESTED = {v: why for v in VERSIONS[1:] if (why := why_missing(v))}
TRACEBACK = re.compile(r"Traceback|attempt to |stack traceback|error in callback", re.IGNORECASE)


@dataclass(slots=True)
class Stage:
    """A running Prosody and the meeting service that its module asks."""

    server: Prosody
    hook: Webhook
    mark: int = 0

    def log(self) -> str:
        """What Prosody logged since the test began."""
        return self.server.log_since(self.mark)

    def log_is_read(self) -> None:
        """The errors that the log holds so far are meant to be there."""
        self.mark = self.server.mark()


Stages = Callable[..., Awaitable[Stage]]


class Theatre:
    """Starts stages when they are first wanted and keeps them until the end of the run."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._stages: dict[str, Stage] = {}

    async def stage(self, stack: AsyncExitStack | None, version: str, **start: Any) -> Stage:
        key = repr((version, sorted(start.items())))
        if stack is None and key in self._stages:
            return self._stages[key]
        into = stack or self._stack
        hook = await into.enter_async_context(Webhook.start())
        options = dict(start.pop("options", {}))
        start.setdefault("webhook_url", hook.url)
        start = {k: (v.format(hook=hook) if isinstance(v, str) and "{hook" in v else v) for k, v in start.items()}
        server = await into.enter_async_context(Prosody.start(version=version, options=options, **start))
        stage = Stage(server, hook)
        if stack is None:
            self._stages[key] = stage
        return stage


@pytest.fixture(scope="session", params=[v for v in VERSIONS if v not in NOT_TESTED])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def theatre() -> AsyncIterator[Theatre]:
    async with AsyncExitStack() as stack:
        yield Theatre(stack)


@pytest_asyncio.fixture(loop_scope="session")
async def stages(theatre: Theatre, version: str) -> AsyncIterator[Stages]:
    """Gives a stage with these arguments for `Prosody.start`; `fresh=True` for one that nobody shares."""
    used: list[Stage] = []
    async with AsyncExitStack() as own:

        async def give(fresh: bool = False, **start: Any) -> Stage:
            stage = await theatre.stage(own if fresh else None, version, **start)
            if stage not in used:
                stage.hook.forget()
                stage.mark = stage.server.mark()
                used.append(stage)
            return stage

        yield give
        logs = [stage.log() for stage in used]
    for log in logs:
        bad = TRACEBACK.search(log)
        assert bad is None, f"Prosody's log holds an error:\n{log[max(0, bad.start() - 2000) : bad.end() + 2000]}"


@pytest_asyncio.fixture(loop_scope="session")
async def stage(stages: Stages) -> Stage:
    """The stage with the module's defaults."""
    return await stages()


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A room that no other test uses."""
    name: str = request.node.name
    short = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50]
    return f"{short}-{zlib.crc32(request.node.nodeid.encode()):08x}"


async def eventually(look: Callable[[], Awaitable[Any]], expected: object, within: float = 5.0) -> None:
    """Waits for something in the server that nobody announces."""
    async with asyncio.timeout(within):
        while await look() != expected:
            await asyncio.sleep(0.01)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for version, why in NOT_TESTED.items():
        terminalreporter.write_sep("!", f"Prosody {version} was NOT TESTED: {why}", red=True, bold=True)
