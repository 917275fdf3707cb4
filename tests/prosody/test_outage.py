"""The whole way, Prosody with the module and a real sidecar: what a decision says counts in an outage too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.prosody.conftest import Server, StartProsody, eventually
from tests.rig.answers import Request, reply
from tests.rig.backend import Backend
from tests.rig.sidecar import Sidecar
from tests.rig.xmpp import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETTINGS = {
    "endpoints": {
        "validate-access": {"allow": {"fresh": 0.1, "stale_while_revalidate": 0}},
        "room-created": {"fresh": 0.1, "stale_while_revalidate": 0},
    }
}
PEOPLE: dict[str, dict[str, Any]] = {
    "mod": {"isModerator": True},
    "late": {"requireLobby": True},
    "short": {"remainingMinutes": 90},
    "out": {"allowed": False, "reason": "Cancelled", "status": "CANCELLED", "redirectUrl": "https://example.com"},
}


async def by_person(request: Request) -> Any:
    who = request.body["userJid"].partition("@")[0]
    return await reply({"allowed": True, "configuration": {"meetingTitle": "Board"}, **PEOPLE.get(who, {})})(request)


async def join(prosody: Server, room: str, who: str) -> dict[str, Any]:
    """What comes of a join of this account; the user leaves again."""
    async with Client.connect(prosody, user=who) as client:
        result = await client.join(room, nick=who)
        data = await prosody.module(
            f'local room = muc.get_room_from_jid("{room}@{prosody.muc}"); local at = room._data.muc_webhook_ends_at; '
            "return at and (at - os.time()) / 60 or -1"
        )
        refused = client.json_messages(room) if result.denied else []
        await client.leave(room, who)
    title = result.config and result.config.get("meetingTitle")
    return {"role": result.role, "error": str(result.error), "title": title, "refused": refused, "minutes": data}


async def everybody(prosody: Server, room: str) -> dict[str, dict[str, Any]]:
    """What comes of the joins of all, in a meeting of their own; the first makes the room."""
    async with Client.connect(prosody, user="first") as first:
        assert (await first.join(room, nick="first")).joined
        return {who: await join(prosody, room, who) for who in (*PEOPLE, "bob")}


@pytest.mark.parametrize("gone", ["the backend is away", "the sidecar was killed and the backend is away"])
async def test_a_decision_counts_word_for_word_in_an_outage(start_prosody: StartProsody, room: str, gone: str) -> None:
    async with (
        Backend() as backend,
        Sidecar.prepared(backend.url, SETTINGS, on_disk=True) as sidecar,
    ):
        await sidecar.run()
        backend.on("validate-access", by_person)
        options = {"muc_webhook_url": sidecar.webhooks, "muc_webhook_events": ["user-joined"]}
        prosody = await start_prosody(muc_modules=("muc_webhook", "rig_lobby"), options=options, fresh=True)
        before = await everybody(prosody, room)
        assert before["mod"]["role"] == "moderator"
        assert before["late"]["error"] == "auth/registration-required"
        assert before["short"]["minutes"] == pytest.approx(90, abs=1)
        assert before["out"]["refused"][0]["status"] == "CANCELLED"
        assert {seen["title"] for seen in before.values()} == {"Board", None}
        assert backend.asked("room-created", room) == []

        async def delivered() -> int:
            return len({request.key for request in backend.asked("user-joined", room)})

        await eventually(delivered, 4)
        decided = {request.body["decisionId"] for request in backend.asked("user-joined", room)}
        assert (
            decided
            == {line["decisionId"] for line in await sidecar.logged("request") if "decisionId" in line} & decided
        )
        assert {request.body["decidedBy"] for request in backend.asked("user-joined", room)} == {"backend"}

        await backend.stop()
        if "killed" in gone:
            await asyncio.sleep(0.5)  # an allow is written behind
            await sidecar.kill()
            await sidecar.run()
        during = await everybody(prosody, room)
        for seen in (*before.values(), *during.values()):
            seen["minutes"] = round(seen["minutes"])
        assert during == before

        await backend.listen()
        await eventually(delivered, 8, within=20)
        by = {r.body["userJid"].partition("@")[0]: r.body["decidedBy"] for r in backend.asked("user-joined", room)[4:]}
        assert by == dict.fromkeys(["first", "mod", "short", "bob"], "memory")
