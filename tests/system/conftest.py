"""A meeting service for those who need one that is well."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.rig.backend import BY_NAME, Backend


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """Its rooms say by their names who is denied."""
    async with Backend(BY_NAME) as running:
        yield running
