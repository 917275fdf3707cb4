"""The whole way of an order: from the HTTP call over the real sidecar and the link to what the user sees."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.prosody.conftest import StartProsody, eventually
from tests.prosody.ordering import put_out
from tests.prosody.story import OPTIONS as EVENTS
from tests.prosody.test_locks import locks_of
from tests.rig.answers import reply
from tests.rig.backend import Backend
from tests.rig.ports import free_port
from tests.rig.sidecar import Sidecar
from tests.rig.xmpp import Client
from tools.command_documents import validate

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY, TOKEN = "a-key-of-the-meeting-service", "a-token-for-the-module"
AS_MODULE = {"muc_webhook_secret": TOKEN}
QUICK = 0.1
"""Seconds from the call to what the user sees."""


def ordered(folder: Path) -> dict[str, Any]:
    """Settings of a sidecar that takes orders."""
    (folder / "key").write_text(KEY)
    (folder / "token").write_text(TOKEN)
    control = {"port": free_port(), "token_file": str(folder / "key")}
    return {"control": control, "listen": {"token_file": str(folder / "token")}}


async def orders(sidecar: Sidecar, verb: str, body: Any, key: str | None = None) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{sidecar.config['control']['port']}/control/v1/{verb}"
    headers = {"Authorization": f"Bearer {KEY}", **({"Idempotency-Key": key} if key else {})}
    async with sidecar.session.post(url, json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def test_a_kick_and_an_end_reach_the_users_at_once_and_memory_lets_nobody_in_again(
    start_prosody: StartProsody, room: str, tmp_path: Path
) -> None:
    async with Backend() as backend, Sidecar.start(backend.url, ordered(tmp_path)) as sidecar:
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.webhooks, options=AS_MODULE)
        await eventually(lambda: sidecar.metric("links"), 1.0)
        async with Client.connect(prosody, user="ann") as ann, Client.connect(prosody, user="carol") as carol:
            times = []
            for _ in range(3):  # the machine may be busy: the best of three counts
                for client, nick in ((ann, "ann"), (carol, "carol")):
                    assert (await client.join(room, nick=nick)).joined
                began = time.monotonic()
                kick = {"room": room, "user": "ann@auth.localhost", "reason": "Not invited"}
                assert await orders(sidecar, "kick", kick) == (200, {"kicked": 1})
                assert await put_out(ann, room) == ({"307"}, "Not invited")
                times.append(time.monotonic() - began)
                await carol.leave(room, nick="carol")
                await eventually(lambda: prosody.occupants(room), [])
            assert min(times) < QUICK
            assert (await carol.join(room, nick="carol")).joined
            code, printed = await sidecar.command("who", room, "--json")
            assert (code, [each["nick"] for each in json.loads(printed)["occupants"]]) == (0, ["carol"])
            validate("who", printed)
            assert (await orders(sidecar, "end", {"room": room, "reason": "Over"}))[1] == {"ended": True}
            await eventually(lambda: prosody.occupants(room), [])
            assert (await orders(sidecar, "end", {"room": room}))[0] == 404
            await backend.stop()
            for client, nick in ((ann, "ann"), (carol, "carol")):
                assert (await client.join(room, nick=nick)).denied


@pytest.mark.parametrize("remembered", [True, False])
async def test_a_refresh_while_the_meeting_service_is_away_opens_nothing(
    start_prosody: StartProsody, room: str, tmp_path: Path, remembered: bool
) -> None:
    settings = {
        **ordered(tmp_path),
        "default_room_config": {"chatEnabled": True},
        "endpoints": {"room-created": {"on_unavailable": "default"}},
    }
    async with Backend() as backend, Sidecar.start(backend.url, settings) as sidecar:
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.webhooks, options=AS_MODULE)
        await eventually(lambda: sidecar.metric("links"), 1.0)
        backend.on("room-created", reply({"password": "first"}))
        async with Client.connect(prosody, user="ann") as ann, Client.connect(prosody, user="bob") as bob:
            assert (await ann.join(room, nick="ann", password="first")).joined
            if not remembered:
                await orders(sidecar, "forget", {"room": room, "mode": "drop"})
            await backend.stop()
            status, said = await orders(sidecar, "refresh", {"room": room})
            assert (status, "the meeting service cannot be reached" in said["detail"]) == (502, True)
            assert (await locks_of(prosody, room))["password"] == "first"
            await backend.listen()
            backend.on("room-created", reply({"password": "second"}))
            assert await orders(sidecar, "refresh", {"room": room}) == (
                200,
                {"refreshed": True, "changed": ["password"]},
            )
            assert str((await bob.join(room, nick="bob", password="first")).error) == "auth/not-authorized"
    prosody.log_is_read()


async def ends_a_meeting_and_begins_another(ann: Client, room: str, backend: Backend) -> None:
    """So that the sidecar knows that this Prosody sends `room-destroyed`."""
    await ann.join(f"{room}-before", nick="ann")
    await ann.leave(f"{room}-before", nick="ann")
    await backend.received("room-destroyed", f"{room}-before")
    await ann.join(room, nick="ann")
    await backend.received("user-joined", room)


async def test_the_backend_hears_of_the_meetings_of_a_prosody_that_was_killed(
    start_prosody: StartProsody, room: str
) -> None:
    async with Backend() as backend, Sidecar.start(backend.url) as sidecar:
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.webhooks, options=EVENTS)
        async with Client.connect(prosody, user="ann") as ann:
            await ends_a_meeting_and_begins_another(ann, room, backend)
            await prosody.crash()
        (end,) = await backend.received("room-destroyed", room, within=15.0)
        assert (end.body["cause"], end.body["roomJid"]) == ("server-restart", f"{room}@conference.localhost")


async def test_a_prosody_that_was_stopped_ends_its_meetings_itself_and_once(
    start_prosody: StartProsody, room: str
) -> None:
    async with Backend() as backend, Sidecar.prepared(backend.url, on_disk=True) as sidecar:
        await sidecar.run()
        prosody = await start_prosody(fresh=True, webhook_url=sidecar.webhooks, options=EVENTS, storage="internal")
        async with Client.connect(prosody, user="ann") as ann:
            await ends_a_meeting_and_begins_another(ann, room, backend)
            await sidecar.end()  # so that the last events stay with Prosody
            prosody.process.terminate()
            await ann.gone.wait()
        await prosody.process.wait()
        await sidecar.run()
        await prosody.start_again()
        await backend.received("user-left", room, within=15.0)
        (end,) = await backend.received("room-destroyed", room)
        assert end.body["cause"] == "empty"
