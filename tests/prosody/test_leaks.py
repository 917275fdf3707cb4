"""Nothing is left behind, however badly it goes."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from tests.prosody.conftest import StartProsody, eventually
from tests.rig.answers import Answer, allow, deny, hold, raw, reply, reset
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEFT = """
    local state, n = webhook.module.save(), { records = 0, detached = 0, exchanges = 0 };
    for name in pairs(n) do for _ in pairs(state[name]) do n[name] = n[name] + 1; end end
    n.pending = state.pending_joins;
    return n"""


async def test_a_thousand_joins_with_errors_leave_nothing(start_prosody: StartProsody, room: str) -> None:
    prosody = await start_prosody(options={"muc_webhook_timeout": 0.2}, log_level="info")
    server, backend, rng = prosody, prosody.backend, random.Random(4)
    answers: list[Answer] = [
        allow(),
        deny("No"),
        deny("No", after=0.01),
        raw("nonsense"),
        raw("[" * 10_000),
        reply({}, status=500),
        reset(),
        hold(allow()),
    ]
    configs = [
        reply({}),
        reply({"password": "x"}),
        reply({}, status=404),
        reply({}, status=500),
        reset(),
        raw("x"),
    ]
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(Client.connect(server)) for _ in range(100)]
        for client in crowd:
            await client.join(f"warm-{room}")
            await client.leave(f"warm-{room}")
        sockets_before = server.sockets()
        rooms_before = await server.rooms()

        async def come_and_go(client: Client, number: int) -> bool:
            own = f"{room}-{rng.randrange(40)}"
            result = await client.join(own, nick=f"n{number}", within=60)
            if result.joined:
                await client.leave(own, f"n{number}")
            return result.joined

        joined = 0
        for number in range(10):
            for which in range(40):
                backend.on("validate-access", rng.choice(answers), room=f"{room}-{which}")
                backend.on("room-created", rng.choice(configs), room=f"{room}-{which}")
            joined += sum(await asyncio.gather(*(come_and_go(c, i) for i, c in enumerate(crowd, number * 100))))
        assert 0 < joined < 1000

        async def surplus_is_within(most: int) -> bool:
            return server.sockets() - sockets_before <= most

        await eventually(lambda: surplus_is_within(0), True)
        assert await server.rooms() == rooms_before
        left = await server.module(LEFT)
        left.pop("records")  # those of rooms that were refused for their password, swept after a minute
        assert left == {"detached": 0, "exchanges": 0, "pending": 0}
