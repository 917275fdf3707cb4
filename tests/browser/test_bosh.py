"""A join over BOSH costs the browser no request more than without the module."""

from __future__ import annotations

import pytest

from tests.browser.conftest import Meet
from tests.browser.meeting import JOINED

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def requests_of_a_join(meet: Meet, room: str, last: str) -> int:
    """How many requests the browser has sent until the last part of the join had arrived."""
    user = await meet.user(transport="bosh")
    before: int = await user.tab.call("requests")
    assert await user.join(room) == JOINED
    await user.tab.run(last)
    after: int = await user.tab.call("requests")
    return after - before


async def test_a_join_is_as_many_requests_as_without_the_module(meet: Meet, room: str) -> None:
    await meet(muc_modules=())
    without = await requests_of_a_join(meet, room, "true")
    await meet()
    with_module = await requests_of_a_join(meet, room, "waitForMessage('ROOM_CONFIG', 10000)")
    assert with_module <= without
