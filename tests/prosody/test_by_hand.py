"""What CONTRIBUTING.md names to try a change by hand."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.prosody.conftest import Server
from tests.rig.answers import deny
from tests.rig.by_hand import HELP, Session, obey

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_each_command_prints_what_a_user_or_an_operator_sees(prosody: Server, room: str) -> None:
    prosody.backend.on("validate-access", deny("Cancelled"), room=f"{room}-no")
    async with AsyncExitStack() as users:
        session = Session(prosody, users)
        assert (await obey(session, f"join {room} ann")).startswith("joined as ")
        assert await obey(session, f"who {room}") == "ann"
        assert (await obey(session, f"join {room}-no ann")).startswith("refused: cancel/not-allowed")
        assert "was denied: Cancelled" in await obey(session, "log")
        assert await obey(session, "reload") == "reloaded"
        assert "joins: 0 pending" in await obey(session, "status")
        assert await obey(session, f"leave {room} ann") == "left"
        assert await obey(session, "dance") == HELP
