"""Users of a real Prosody who are connected before and join rooms, with as little work as possible for this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from bench.sample import WentWrong
from tests.rig.prosody import Prosody

GIVE_UP_AFTER = 30.0


class Session(asyncio.Protocol):
    """An anonymous user; reads only the few bytes that show the result of a join."""

    IN, ERROR = b"<status code='110'/>", b"type='error'"

    def __init__(self) -> None:
        """Not connected yet; `connect` makes one."""
        self._wanted: tuple[bytes, ...] = ()
        self._found: asyncio.Future[bytes] | None = None
        self._seen = b""
        self._free = asyncio.Lock()

    @classmethod
    async def connect(cls, server: Prosody) -> Self:
        """A user who is logged in."""
        _, it = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", server.c2s_port)
        stream = (
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
            f"xmlns:stream='http://etherx.jabber.org/streams' to='{server.domain}'>"
        )
        await it.exchange(stream, b"</stream:features>")
        await it.exchange("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'/>", b"<success")
        await it.exchange(stream, b"</stream:features>")
        bind = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
        await it.exchange(bind, b"</iq>")
        return it

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.Protocol."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Of asyncio.Protocol."""
        if self._found is None or self._found.done():
            return
        self._seen = self._seen[-40:] + data
        for text in self._wanted:
            if text in self._seen:
                self._found.set_result(text)
                return

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio.Protocol."""
        if self._found is not None and not self._found.done():
            self._found.set_exception(exc or ConnectionError("Prosody closed the stream"))

    async def exchange(self, xml: str, *wanted: bytes) -> bytes:
        """Sends this after the answer to the last one, and waits for the first of these texts."""
        async with self._free:
            self._wanted, self._seen = wanted, b""
            self._found = asyncio.get_running_loop().create_future()
            self.transport.write(xml.encode())
            return await asyncio.wait_for(self._found, GIVE_UP_AFTER)

    async def join(self, room_jid: str, nick: str) -> bool:
        """Whether this user is in the room."""
        presence = f"<presence to='{room_jid}/{nick}'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        return await self.exchange(presence, self.IN, self.ERROR) == self.IN

    def leave(self, room_jid: str, nick: str) -> None:
        """Does not wait."""
        self.transport.write(f"<presence type='unavailable' to='{room_jid}/{nick}'/>".encode())


@dataclass(frozen=True, slots=True)
class Run:
    """A number of joins into rooms of a size; `name` makes the rooms different from those of other runs."""

    size: int
    joins: int
    at_once: int
    name: str

    def each(self) -> Iterator[tuple[int, str, str]]:
        """Number, room and nick of each join."""
        for number in range(self.joins):
            yield number, f"{self.name}-{number // self.size}", f"n{number % self.size}"


async def join_all(server: Prosody, users: Sequence[Session], run: Run) -> list[float]:
    """Seconds that each join took, sorted."""
    todo, times = run.each(), list[float]()

    async def keep_joining() -> None:
        for number, room, nick in todo:
            begun = time.perf_counter()
            if not await users[number % len(users)].join(f"{room}@{server.muc}", nick):
                raise WentWrong(f"a join into {room} was refused")
            times.append(time.perf_counter() - begun)

    joining = [asyncio.ensure_future(keep_joining()) for _ in range(run.at_once)]
    try:
        await asyncio.gather(*joining)
    finally:
        for each in joining:
            each.cancel()
    return sorted(times)


async def leave_all(server: Prosody, users: Sequence[Session], run: Run) -> None:
    """Until all rooms are gone."""
    for number, room, nick in run.each():
        users[number % len(users)].leave(f"{room}@{server.muc}", nick)
    give_up_at = time.monotonic() + GIVE_UP_AFTER
    while await server.rooms():
        if time.monotonic() > give_up_at:
            raise WentWrong("rooms remain after all users have left")
        await asyncio.sleep(0.02)
