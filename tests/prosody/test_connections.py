"""What becomes of connections to the meeting service: Prosody 13 keeps one, 0.12 none."""

from __future__ import annotations

import pytest
from aiohttp import web

from tests.prosody.conftest import Stage, Stages
from tests.rig.webhook import Request, allow, deny, hold, reset
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_thirteen_uses_a_connection_again(stages: Stages, room: str, version: str) -> None:
    stage = await stages(fresh=True)
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.join(room, nick="ann")
        for _ in range(10):
            await bob.join(room, nick="bob")
            await bob.leave(room, "bob")
    questions = stage.hook.asked("validate-access", room)
    connections = len({q.connection for q in questions})
    assert len(questions) == 11
    assert connections == 11 if version == "0.12" else connections <= 2


async def test_the_next_user_never_gets_the_answer_to_another_question(stages: Stages, room: str) -> None:
    """A time-out must close the connection: its late answer would be taken for that of the next question."""
    stage = await stages(fresh=True, options={"muc_webhook_timeout": 1})
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as eve:
        await ann.join("warm-" + room, nick="ann")
        late = hold(allow())
        stage.hook.on("validate-access", late)
        assert str((await ann.join(room, nick="ann")).error) == "wait/remote-server-timeout"
        stage.hook.on("validate-access", deny("No", after=0.1))
        await eve.begin_join(room, "eve")
        await stage.hook.received("validate-access", room, count=2)
        late.release()
        assert str((await eve.await_join(room)).error) == "cancel/not-allowed"


@pytest.mark.parametrize("how", ["politely", "at the next question"])
async def test_a_backend_that_closes_its_connections_refuses_nobody(stages: Stages, room: str, how: str) -> None:
    stage = await stages(fresh=True)
    used: set[int] = set()

    async def answer(request: Request) -> web.StreamResponse:
        response = web.json_response({"allowed": True})
        if how == "politely":
            response.force_close()
        elif request.connection in used:
            return await reset()(request)  # a connection that was idle for too long
        used.add(request.connection)
        return response

    stage.hook.on("validate-access", answer)
    stage.hook.on("room-created", answer)
    async with Client.connect(stage.server) as ann:
        for number in range(10):
            assert (await ann.join(f"{room}-{number}")).joined
            await ann.leave(f"{room}-{number}")


async def test_a_backend_that_restarted_refuses_nobody(stages: Stages, room: str) -> None:
    stage = await stages(fresh=True)
    async with Client.connect(stage.server) as ann:
        for number in range(5):
            assert (await ann.join(f"{room}-{number}")).joined
            await stage.hook.stop()
            await stage.hook.listen()


async def test_two_questions_at_once_have_two_connections(stage: Stage, room: str) -> None:
    slow = hold(allow())
    stage.hook.on("validate-access", slow)
    async with Client.connect(stage.server) as ann, Client.connect(stage.server) as bob:
        await ann.begin_join(room, "ann")
        await bob.begin_join(room, "bob")
        first, second = await stage.hook.received("validate-access", room, count=2)
        slow.release()
        assert first.connection != second.connection
        assert (await ann.await_join(room)).joined
        assert (await bob.await_join(room)).joined
