"""A Prosody with the parts of a Jitsi that enforce settings, and what its users do there."""

from __future__ import annotations

import json
from typing import Any
from xml.sax.saxutils import escape

from tests.prosody.conftest import Server, StartProsody
from tests.rig.xmpp import CLIENT, JITMEET, Client, error_of, json_message

METADATA = "metadata.localhost"
MODULES = ("jitsi_permissions", "filter_messages", "muc_webhook")
COMPONENTS = """
Component "metadata.localhost" "room_metadata_component"
	muc_component = "conference.localhost"
Component "avmoderation.localhost" "av_moderation_component"
	muc_component = "conference.localhost"
Component "polls.localhost" "polls_component"
"""


async def start_jitsi(start_prosody: StartProsody, **start: Any) -> Server:
    return await start_prosody(
        **{"muc_modules": MODULES, "extra": COMPONENTS, "extra_global": 'muc_mapper_domain_base = "localhost"', **start}
    )


async def in_room(prosody: Server, room: str, code: str) -> Any:
    """Runs a piece of Lua with `room`."""
    return await prosody.module(f'local room = muc.get_room_from_jid("{room}@{prosody.muc}"); {code}')


async def metadata_of(prosody: Server, room: str) -> dict[str, Any]:
    """What Jitsi's modules have in the room."""
    text = await in_room(prosody, room, 'return require "util.json".encode(room.jitsiMetadata)')
    metadata: dict[str, Any] = json.loads(text)
    return metadata


def metadata_seen(client: Client) -> list[dict[str, Any]]:
    """Takes the metadata out of the inbox, as the page got them. Jitsi's module sends none to who makes the room."""
    taken = []
    for stanza in list(client.inbox):
        message = json_message(stanza)
        if message is not None and message.get("type") == "room_metadata":
            client.inbox.remove(stanza)
            message["metadata"].pop("services", None)  # TURN servers
            taken.append(message["metadata"])
    return taken


async def write_metadata(client: Client, room: str, key: str, data: object) -> None:
    await set_session(client, room)
    change = escape(json.dumps({"key": key, "data": data}))
    element = f"<room_metadata xmlns='http://jitsi.org/jitmeet' room='{client.room_jid(room)}'>{change}</room_metadata>"
    await client.send(f"<message to='{METADATA}'>{element}</message>")
    await client.ping()


async def promote(prosody: Server, room: str, client: Client) -> None:
    """Makes a moderator of a user."""
    bare = client.jid.partition("/")[0]
    await in_room(prosody, room, f'assert(room:set_affiliation(true, "{bare}", "owner"))')


async def set_session(
    client: Client, room: str, *, tenant: str | None = None, token: str | None = None, **features: bool
) -> None:
    """The room that the URL names, and what a token allows: `create_polls=False`."""
    given: dict[str, object] = {"room": room, "tenant": tenant}
    if token:
        given |= {"token": token, "user": {}, "features": {k.replace("_", "-"): v for k, v in features.items()}}
    await client.iq("set", f"<token xmlns='urn:rig:token'>{escape(json.dumps(given))}</token>")


async def answer_to(client: Client, message: str) -> str:
    """Sends a message with the id `said`; gives the error, or "" if it was taken."""
    await client.send(message)
    await client.ping()
    for stanza in list(client.inbox):
        if stanza.tag == f"{CLIENT}message" and stanza.get("id") == "said":
            client.inbox.remove(stanza)
            if stanza.get("type") == "error":
                return str(error_of(stanza))
    return ""


async def write(client: Client, room: str, text: str = "hello", *, namespace: str = "jabber:client") -> str:
    body = f"<body xmlns='{namespace}'>{text}</body>"
    return await answer_to(client, f"<message type='groupchat' id='said' to='{client.room_jid(room)}'>{body}</message>")


async def whisper(client: Client, room: str, nick: str, *, kind: str = "chat", namespace: str = "jabber:client") -> str:
    body = f"<body xmlns='{namespace}'>psst</body>"
    return await answer_to(
        client, f"<message type='{kind}' id='said' to='{client.room_jid(room)}/{nick}'>{body}</message>"
    )


async def make_poll(client: Client) -> str:
    poll = json.dumps(
        {"type": "polls", "command": "new-poll", "pollId": "1", "question": "?", "answers": [{"name": "a"}]}
    )
    element = f"<json-message xmlns='{JITMEET[1:-1]}'>{poll}</json-message>"
    return await answer_to(client, f"<message id='said' to='polls.localhost'>{element}</message>")


async def moderate_media(client: Client, *, enable: bool = True, kind: str = "normal") -> str:
    element = f"<av_moderation enable='{str(enable).lower()}' mediaType='audio'/>"
    return await answer_to(client, f"<message type='{kind}' id='said' to='avmoderation.localhost'>{element}</message>")


def order_to_record(mode: str = "file", action: str = "start", attributes: str = "") -> str:
    return f"<jibri xmlns='http://jitsi.org/protocol/jibri' action='{action}' recording_mode='{mode}' {attributes}/>"
