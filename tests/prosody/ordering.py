"""Orders of the meeting service, given straight to the module's part that carries them out."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any
from xml.etree import ElementTree as ET

from tests.prosody.conftest import Server, eventually
from tests.rig.xmpp import MUC_USER, Client, statuses

_numbers = itertools.count(1)

BREAKOUT = "breakout.localhost"
LOBBY = "lobby.localhost"
SIDE_ROOMS = f"""
VirtualHost "localhost"
	main_muc = "conference.localhost"
	breakout_rooms_muc = "{BREAKOUT}"
	lobby_muc = "{LOBBY}"
Component "{BREAKOUT}" "muc"
	muc_room_locking = false
Component "{LOBBY}" "muc"
	muc_room_locking = false
"""
"""A host for breakout rooms and one for lobbies, as Jitsi has them."""

CARRY_OUT = """
    prosody.rig_outcomes = prosody.rig_outcomes or {{}};
    local orders = module:shared("/*/muc_webhook/guards")["{muc}"].gate.parts.orders;
    local order = require "util.json".decode({order});
    orders.carry_out("{id}", order, function (outcome)
        local known = prosody.rig_outcomes["{id}"] or {{}};
        table.insert(known, outcome);
        prosody.rig_outcomes["{id}"] = known;
    end);"""


def new_id() -> str:
    return f"order-{next(_numbers)}"


async def begin(prosody: Server, verb: str, room: str | None = None, *, id: str, **fields: Any) -> None:
    """Gives an order; `outcomes` has what becomes of it."""
    order = {"verb": verb, "issued": time.time(), **fields}
    if room is not None:
        order["room"] = room
    text = "[====[" + json.dumps(order) + "]====]"
    await prosody.module(CARRY_OUT.format(muc=prosody.muc, order=text, id=id))


async def outcomes(prosody: Server, id: str) -> list[dict[str, Any]]:
    known: list[dict[str, Any]] = await prosody.lua(
        f'return setmetatable(prosody.rig_outcomes and prosody.rig_outcomes["{id}"] or {{}}, '
        'getmetatable(require "util.array"()))'
    )
    return known


async def order(
    prosody: Server, verb: str, room: str | None = None, *, id: str | None = None, **fields: Any
) -> dict[str, Any]:
    """Gives an order, waits for its outcome and returns it; `issued` is now unless it is given."""
    id = id or new_id()
    before = len(await outcomes(prosody, id))
    await begin(prosody, verb, room, id=id, **fields)

    async def count() -> int:
        return len(await outcomes(prosody, id))

    await eventually(count, before + 1)
    return (await outcomes(prosody, id))[-1]


async def in_room(prosody: Server, room: str, code: str) -> Any:
    """Runs a piece of Lua with `room`."""
    return await prosody.module(f'local room = muc.get_room_from_jid("{room}@{prosody.muc}"); {code}')


async def open_breakout_room(prosody: Server, room: str) -> str:
    """What Jitsi's module does for a moderator, with the fields that it sets."""
    breakout = f"0b6cb7f0-{room}@{BREAKOUT}"
    await in_room(
        prosody,
        room,
        f"""room._data.breakout_rooms = {{ ["{breakout}"] = "First" }};
        room._data.breakout_rooms_active = true;
        room:set_persistent(true);""",
    )
    return breakout


async def switch(client: Client, room: str, breakout: str, nick: str) -> None:
    """Goes from the main room into a breakout room."""
    await client.send(
        f"<presence type='unavailable' to='{client.room_jid(room)}/{nick}'><status>switch_room</status></presence>"
    )
    assert (await client.join(breakout, nick=nick)).joined


async def put_out(client: Client, room: str, within: float = 5.0) -> tuple[set[str], str | None]:
    """Waits until the client is told that it is out of the room; gives the status codes and the reason."""
    room_jid = client.room_jid(room)

    def is_end(stanza: ET.Element) -> bool:
        is_own = "110" in statuses(stanza) and stanza.get("from", "").partition("/")[0] == room_jid
        return is_own and stanza.get("type") == "unavailable"

    stanza = await client.expect(is_end, within)
    return set(statuses(stanza)) - {"110"}, reason_in(stanza)


def reason_in(stanza: ET.Element) -> str | None:
    return next((each.text for each in stanza.iter(f"{MUC_USER}reason")), None)
