"""A meeting service, an engine, and a proxy before it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rig.backend import BY_NAME, Backend
from tests.rig.engine import EngineProcess, why_missing
from tests.rig.toxic import Toxic

NOT_TESTED = why_missing()


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    async with Backend(BY_NAME) as running:
        yield running


@pytest.fixture(autouse=True)
def there_is_an_engine() -> None:
    if NOT_TESTED:
        pytest.skip(NOT_TESTED)


@pytest.fixture
async def engine() -> AsyncIterator[EngineProcess]:
    async with EngineProcess.start() as running:
        yield running


@pytest.fixture
async def proxy(engine: EngineProcess) -> AsyncIterator[Toxic]:
    async with Toxic(engine.port) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if NOT_TESTED:
        terminalreporter.write_sep("!", f"Many shards were NOT TESTED: {NOT_TESTED}", red=True, bold=True)
