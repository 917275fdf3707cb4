"""Stands in for jicofo: makes the rooms that browsers ask for, sits in them as `focus`, and starts recordings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from tests.rig.prosody import Prosody
from tests.rig.xmpp import CLIENT, MUC, MUC_USER, STANZAS, Client, ComponentTransport

ADDRESS = "component.localhost"
"""Where browsers ask for a room: `hosts.focus` of the page."""
FOCUS = "http://jitsi.org/protocol/focus"
JIBRI = "http://jitsi.org/protocol/jibri"
ON = f"<jibri-recording-status xmlns='{JIBRI}' status='on' recording_mode='file' session_id='s1'/>"


class Jicofo:
    """Make one with `Jicofo.start`."""

    def __init__(self, client: Client, requests: ComponentTransport) -> None:
        self._client, self._requests = client, requests
        self._rooms: dict[str, dict[str, str | None]] = {}
        """JID of each room that it is in -> nick -> role."""
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def start(cls, server: Prosody) -> AsyncIterator[Self]:
        requests = ComponentTransport(server, ADDRESS)
        async with Client.connect(server, user="focus") as client:
            await requests.open()
            jicofo = cls(client, requests)
            try:
                async with asyncio.TaskGroup() as group:
                    loops = [group.create_task(each) for each in (jicofo._take_requests(), jicofo._take_stanzas())]
                    yield jicofo
                    for loop in loops:
                        loop.cancel()
            finally:
                await requests.close()

    async def leave(self, room: str) -> None:
        """As it does when nobody else is there any more."""
        room_jid = self._client.room_jid(room)
        self._rooms.pop(room_jid, None)
        await self._client.send(f"<presence type='unavailable' to='{room_jid}/focus'/>")

    async def _take_requests(self) -> None:
        while True:
            for stanza in await self._requests.receive():
                conference = stanza.find(f"{{{FOCUS}}}conference")
                if conference is not None:
                    await self._make_room(stanza, conference.get("room", ""))

    async def _make_room(self, request: ET.Element, room_jid: str) -> None:
        if room_jid not in self._rooms:
            self._rooms[room_jid] = {}
            await self._be_present(room_jid)
            await self._client.expect(lambda e: e.get("from") == f"{room_jid}/focus" and e.get("type") is None)
        await self._requests.send(
            f"<iq type='result' id={quoteattr(request.get('id', ''))} from='{ADDRESS}' "
            f"to={quoteattr(request.get('from', ''))}><conference xmlns='{FOCUS}' room={quoteattr(room_jid)} "
            f"ready='true' focusjid='{self._client.jid.partition('/')[0]}'/></iq>"
        )

    async def _be_present(self, room_jid: str, extra: str = "") -> None:
        await self._client.send(f"<presence to={quoteattr(f'{room_jid}/focus')}><x xmlns='{MUC}'/>{extra}</presence>")

    async def _take_stanzas(self) -> None:
        def is_for_us(stanza: ET.Element) -> bool:
            room_jid, _, nick = stanza.get("from", "").partition("/")
            return room_jid in self._rooms and nick not in ("", "focus")

        while True:
            stanza = await self._client.expect(is_for_us, within=1e9)
            room_jid, _, nick = stanza.get("from", "").partition("/")
            if stanza.tag == f"{CLIENT}presence":
                await self._note(room_jid, nick, stanza)
            elif stanza.tag == f"{CLIENT}iq" and stanza.get("type") in ("get", "set"):
                await self._answer(room_jid, nick, stanza)

    async def _note(self, room_jid: str, nick: str, presence: ET.Element) -> None:
        people = self._rooms[room_jid]
        item = presence.find(f"{MUC_USER}x/{MUC_USER}item")
        if presence.get("type") is None and item is not None:
            people[nick] = item.get("role")
            return
        people.pop(nick, None)
        if not people:
            await self.leave(room_jid)

    async def _answer(self, room_jid: str, nick: str, iq: ET.Element) -> None:
        reply = f"id={quoteattr(iq.get('id', ''))} to={quoteattr(iq.get('from', ''))}"
        if iq.find(f"{{{JIBRI}}}jibri") is None:
            await self._client.send(f"<iq type='result' {reply}/>")
        elif self._rooms[room_jid].get(nick) != "moderator":
            error = f"<error type='cancel'><forbidden xmlns='{STANZAS.strip('{}')}'/></error>"
            await self._client.send(f"<iq type='error' {reply}>{error}</iq>")
        else:
            await self._client.send(
                f"<iq type='result' {reply}><jibri xmlns='{JIBRI}' status='pending' session_id='s1'/></iq>"
            )
            await self._be_present(room_jid, ON)
