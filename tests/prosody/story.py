"""What the module has sent of a room, in words."""

from __future__ import annotations

from tests.prosody.conftest import Server, eventually
from tests.rig.answers import Request
from tests.rig.xmpp import MUC, Client

ALL = ["user-joined", "user-left", "room-destroyed", "moderator-changed", "recording"]
OPTIONS = {"muc_webhook_events": ALL}
ALL_IS_SENT = """
    local state = webhook.module.save()
    for _, life in pairs(state.lives) do
        if life.held_join then return false end
    end
    return state.queue.size == 0"""


async def story(prosody: Server, room: str) -> list[str]:
    """What was sent of a room so far: `joined ann`, `left ann: kicked`, `destroyed: all_users_left`. An event may come
    twice, as when the module was unloaded before the answer; it has the same key then."""
    await eventually(lambda: prosody.module(ALL_IS_SENT), True)
    events: dict[str | None, Request] = {}
    for each in prosody.backend.asked(room=room):
        if each.endpoint in ALL:
            events.setdefault(each.key, each)
    return [sentence(each) for each in events.values()]


def sentence(event: Request) -> str:
    body = event.body
    match event.endpoint:
        case "user-joined":
            return f"joined {body['nick']}"
        case "user-left":
            return f"left {body['nick']}: {body['reason']}"
        case "moderator-changed":
            return f"{body.get('nick')} is {'' if body['isModerator'] else 'no '}moderator"
        case "room-destroyed":
            return f"destroyed: {body['reason']}"
    return f"{body['eventType']} {body.get('sessionId')}"


async def rename(client: Client, room: str, nick: str, *, with_x: bool = False) -> None:
    x = f"<x xmlns='{MUC}'/>" if with_x else ""
    await client.send(f"<presence to='{client.room_jid(room)}/{nick}'>{x}</presence>")
    await client.ping()
