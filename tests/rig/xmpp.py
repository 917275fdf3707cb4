"""XMPP clients that say exactly what a test wants said, over TCP, BOSH or WebSocket.

    async with Client.connect(server, transport="websocket") as ann:
        result = await ann.join("room", nick="ann")
        assert result.joined and result.config == {"chatEnabled": False}

A client keeps each stanza it got until `expect` takes it. Nothing is answered on the client's behalf.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import random
import re
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, cast
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

import aiohttp

from tests.rig.prosody import Prosody

CLIENT = "{jabber:client}"
MUC = "http://jabber.org/protocol/muc"
MUC_USER = "{http://jabber.org/protocol/muc#user}"
JITMEET = "{http://jitsi.org/jitmeet}"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
SM = "urn:xmpp:sm:3"
FRAMING = "urn:ietf:params:xml:ns:xmpp-framing"
BOSH = "http://jabber.org/protocol/httpbind"

Predicate = Callable[[ET.Element], bool]
_numbers = itertools.count(1)


class ConnectionGone(Exception):
    """The server closed the stream."""


@dataclass(frozen=True, slots=True)
class StanzaError:
    """An error as a user's client would show it."""

    type: str
    condition: str
    text: str | None

    def __str__(self) -> str:
        return f"{self.type}/{self.condition}"


@dataclass(frozen=True, slots=True)
class JoinResult:
    """How a join went, and what the room said right after it."""

    joined: bool
    error: StanzaError | None
    statuses: frozenset[str] = frozenset()
    role: str | None = None
    affiliation: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    took: float = 0.0

    @property
    def denied(self) -> bool:
        return not self.joined

    @property
    def config(self) -> dict[str, Any] | None:
        """The settings in ROOM_CONFIG, if the room sent it."""
        for message in self.messages:
            if message.get("type") == "ROOM_CONFIG":
                config: dict[str, Any] = message["config"]
                return config
        return None

    @property
    def asked_to_record(self) -> bool:
        return any(m.get("type") == "START_RECORDING" for m in self.messages)


def error_of(stanza: ET.Element) -> StanzaError:
    error = stanza.find(f"{CLIENT}error")
    assert error is not None
    condition, text = "", None
    for child in error:
        if child.tag == f"{STANZAS}text":
            text = child.text
        elif child.tag.startswith(STANZAS):
            condition = child.tag.removeprefix(STANZAS)
    return StanzaError(error.get("type", ""), condition, text)


def json_message(stanza: ET.Element) -> dict[str, Any] | None:
    """The JSON in a message to Jitsi's frontend."""
    if stanza.tag != f"{CLIENT}message":
        return None
    payload = stanza.find(f"{JITMEET}json-message")
    if payload is None or not payload.text:
        return None
    value: dict[str, Any] = json.loads(payload.text)
    return value


def statuses(stanza: ET.Element) -> frozenset[str]:
    return frozenset(s.get("code", "") for s in stanza.iterfind(f"{MUC_USER}x/{MUC_USER}status"))


class Transport(Protocol):
    """A way to the server: text out, whole elements in."""

    async def open(self) -> None: ...
    async def restart(self) -> None: ...
    async def send(self, xml: str) -> None: ...
    async def receive(self) -> list[ET.Element]: ...
    async def close(self) -> None: ...


class TcpTransport:
    def __init__(self, server: Prosody, domain: str) -> None:
        self._address = ("127.0.0.1", server.c2s_port)
        self._domain = domain
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._parser: ET.XMLPullParser[Any] = ET.XMLPullParser(("start", "end"))
        self._depth = 0
        self._ended = False

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        await self.restart()

    async def restart(self) -> None:
        self._parser, self._depth = ET.XMLPullParser(("start", "end")), 0
        await self.send(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
            f"xmlns:stream='http://etherx.jabber.org/streams' to='{self._domain}'>"
        )

    async def send(self, xml: str) -> None:
        self._writer.write(xml.encode())
        await self._writer.drain()

    async def receive(self) -> list[ET.Element]:
        while not self._ended:
            data = await self._reader.read(65536)
            if not data:
                break
            self._parser.feed(data)
            found: list[ET.Element] = []
            for event, element in cast("Iterator[tuple[str, ET.Element]]", self._parser.read_events()):
                self._depth += 1 if event == "start" else -1
                if event == "end" and self._depth == 1:
                    found.append(element)
                self._ended = self._depth == 0
            if found:
                return found
        raise ConnectionGone

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def half_close(self) -> None:
        """Sends FIN without a word, as a computer that shuts down does."""
        self._writer.write_eof()

    def abort(self) -> None:
        """Sends RST, as a program that was killed does."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class ComponentTransport(TcpTransport):
    """The stream of an external component, which speaks for all users of its domain."""

    def __init__(self, server: Prosody, domain: str) -> None:
        super().__init__(server, domain)
        self._address = ("127.0.0.1", server.component_port)

    async def restart(self) -> None:
        await self.send(
            "<stream:stream xmlns='jabber:component:accept' "
            f"xmlns:stream='http://etherx.jabber.org/streams' to='{self._domain}'>"
        )
        while self._depth == 0:
            self._parser.feed(await self._reader.read(65536))
            for event, element in cast("Iterator[tuple[str, ET.Element]]", self._parser.read_events()):
                assert event == "start", "the stream was refused"
                self._depth, stream_id = 1, element.get("id", "")
        digest = hashlib.sha1(f"{stream_id}secret".encode()).hexdigest()
        await self.send(f"<handshake>{digest}</handshake>")

    async def receive(self) -> list[ET.Element]:
        stanzas = await super().receive()
        for element in (e for stanza in stanzas for e in stanza.iter()):
            element.tag = element.tag.replace("{jabber:component:accept}", CLIENT)
        return stanzas


class ServerTransport(TcpTransport):
    """The stream of another server, which speaks for all users of its domain. It is trusted without dialback, and what
    goes back to its users comes on the same stream."""

    SERVER = "{jabber:server}"

    def __init__(self, server: Prosody, domain: str, port: int) -> None:
        super().__init__(server, domain)
        self._address = ("127.0.0.1", port)
        self._server = server

    async def restart(self) -> None:
        await self.send(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' "
            f"xmlns:stream='http://etherx.jabber.org/streams' from='{self._domain}' to='{self._server.muc}'>"
        )
        while self._depth == 0:
            self._parser.feed(await self._reader.read(65536))
            for event, _ in cast("Iterator[tuple[str, ET.Element]]", self._parser.read_events()):
                self._depth += 1 if event == "start" else -1
        await self._server.lua(f"""
            for _, session in pairs(module:shared("/*/s2s/sessions")) do
                session.hosts["{self._domain}"] = {{ authed = true }};
                session.type, session.from_host = "s2sin", "{self._domain}";
                prosody.rig_answer = function (stanza) return session.sends2s(stanza); end
                session.send = prosody.rig_answer;
            end
            prosody.hosts["{self._server.muc}"].events.add_handler("route/remote", function (event)
                if event.to_host == "{self._domain}" then return prosody.rig_answer(event.stanza); end
            end, 1000)""")

    async def receive(self) -> list[ET.Element]:
        stanzas = await super().receive()
        for element in (e for stanza in stanzas for e in stanza.iter()):
            element.tag = element.tag.replace(self.SERVER, CLIENT)
        return stanzas


class WebSocketTransport:
    def __init__(self, server: Prosody, domain: str) -> None:
        self._url = f"ws://127.0.0.1:{server.http_port}/xmpp-websocket"
        self._domain = domain
        self._http = server.http
        self._socket: aiohttp.ClientWebSocketResponse

    async def open(self) -> None:
        self._socket = await self._http.ws_connect(self._url, protocols=("xmpp",))
        await self.restart()

    async def restart(self) -> None:
        await self.send(f"<open xmlns='{FRAMING}' to='{self._domain}' version='1.0'/>")

    async def send(self, xml: str) -> None:
        await self._socket.send_str(xml)

    async def receive(self) -> list[ET.Element]:
        while True:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise ConnectionGone
            element = ET.fromstring(message.data)
            if element.tag == f"{{{FRAMING}}}close":
                raise ConnectionGone
            if not element.tag.startswith(f"{{{FRAMING}}}"):
                return [element]

    async def close(self) -> None:
        await self._socket.close()

    def half_close(self) -> None:
        """Ends the connection without a word of WebSocket's own."""
        self._socket.get_extra_info("socket").shutdown(socket.SHUT_WR)


class BoshTransport:
    """One request always waits at the server; what is sent meanwhile goes in a second one."""

    def __init__(self, server: Prosody, domain: str) -> None:
        self._url = f"http://127.0.0.1:{server.http_port}/http-bind"
        self._domain = domain
        self._http = server.http
        self._rid = random.randrange(1_000_000, 2_000_000_000)
        self._sid = ""
        self._requests: set[asyncio.Task[None]] = set()
        self._inbox: asyncio.Queue[list[ET.Element] | None] = asyncio.Queue()
        self.responses: list[list[ET.Element]] = []
        """What came so far, response by response; without those that were empty."""

    async def open(self) -> None:
        self._post("", f"to='{self._domain}' wait='30' hold='1' xml:lang='en' xmpp:version='1.0'")

    async def restart(self) -> None:
        self._post("", f"to='{self._domain}' xmpp:restart='true'")

    async def send(self, xml: str) -> None:
        self._post(xml, "")

    async def receive(self) -> list[ET.Element]:
        stanzas = await self._inbox.get()
        if stanzas is None:
            raise ConnectionGone
        return stanzas

    async def close(self) -> None:
        if self._sid:
            self._post("", "type='terminate'")
            await asyncio.sleep(0)
        tasks = list(self._requests)
        with suppress(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def abandon(self) -> None:
        """Goes away without ending the session."""
        tasks = list(self._requests)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._sid = ""

    def _post(self, payload: str, attributes: str) -> None:
        self._rid += 1
        sid = f"sid='{self._sid}'" if self._sid else ""
        body = f"<body rid='{self._rid}' {sid} {attributes} xmlns='{BOSH}' xmlns:xmpp='urn:xmpp:xbosh'>{payload}</body>"
        task = asyncio.create_task(self._exchange(body))
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)

    async def _exchange(self, body: str) -> None:
        headers = {"Content-Type": "text/xml; charset=utf-8"}
        try:
            async with self._http.post(self._url, data=body.encode(), headers=headers) as response:
                answer = ET.fromstring(await response.read())
        except (aiohttp.ClientError, ET.ParseError, OSError):
            self._inbox.put_nowait(None)
            return
        self._sid = answer.get("sid", self._sid)
        if len(answer):
            self.responses.append(list(answer))
            self._inbox.put_nowait(list(answer))
        if answer.get("type") == "terminate":
            self._inbox.put_nowait(None)
        elif len(self._requests) <= 1:
            self._post("", "")


TRANSPORTS: dict[str, Callable[[Prosody, str], Transport]] = {
    "tcp": TcpTransport,
    "bosh": BoshTransport,
    "websocket": WebSocketTransport,
}


class Client:
    """One session. Make one with `Client.connect`."""

    def __init__(self, server: Prosody, domain: str, transport: Transport) -> None:
        self.server = server
        self.domain = domain
        self.transport = transport
        self.jid = ""
        self._stanza_attributes = "xmlns='jabber:client'"
        self.resume_id = ""
        self.inbox: list[ET.Element] = []
        self.received = 0
        self.gone = asyncio.Event()
        self._news = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        server: Prosody,
        *,
        user: str | None = None,
        domain: str | None = None,
        transport: str = "tcp",
        smacks: bool = False,
        resource: str | None = None,
    ) -> AsyncIterator[Self]:
        """A session that is ready: anonymous, or that of `user` on `auth.localhost` (or `domain`)."""
        client = await cls.login(server, user=user, domain=domain, transport=transport)
        try:
            await client.bind(resource)
            if smacks:
                await client.enable_smacks()
            yield client
        finally:
            await client.close()

    @classmethod
    async def login(
        cls, server: Prosody, *, user: str | None = None, domain: str | None = None, transport: str = "tcp"
    ) -> Self:
        """Authenticates and no more; for those who want to resume instead of bind."""
        domain = domain or (server.domain if user is None else server.auth_domain)
        client = cls(server, domain, TRANSPORTS[transport](server, domain))
        await client.transport.open()
        client._reader = asyncio.create_task(client._read())
        await client.expect(lambda e: e.tag.endswith("}features"))
        if user is None:
            await client.send(f"<auth xmlns='{SASL}' mechanism='ANONYMOUS'/>")
        else:
            secret = base64.b64encode(f"\0{user}\0secret".encode()).decode()
            await client.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{secret}</auth>")
        outcome = await client.expect(lambda e: e.tag.startswith(f"{{{SASL}}}"))
        assert outcome.tag == f"{{{SASL}}}success", ET.tostring(outcome)
        await client.transport.restart()
        await client.expect(lambda e: e.tag.endswith("}features"))
        return client

    @classmethod
    @asynccontextmanager
    async def component(cls, server: Prosody, user: str = "bot") -> AsyncIterator[Self]:
        """A user behind the external component, whose stanzas come in on the component's stream."""
        domain = "component.localhost"
        client = cls(server, domain, ComponentTransport(server, domain))
        client.jid = f"{user}@{domain}/rig"
        client._stanza_attributes = f"from='{client.jid}'"
        await client.transport.open()
        client._reader = asyncio.create_task(client._read())
        try:
            await client.expect(lambda e: e.tag == f"{CLIENT}handshake")
            yield client
        finally:
            await client.close()

    @classmethod
    @asynccontextmanager
    async def remote(cls, server: Prosody, port: int, user: str) -> AsyncIterator[Self]:
        """A user of the server remote.test, which connects to that port."""
        client = cls(server, "remote.test", ServerTransport(server, "remote.test", port))
        client.speak_as(user)
        await client.transport.open()
        client._reader = asyncio.create_task(client._read())
        try:
            yield client
        finally:
            await client.close()

    def speak_as(self, user: str) -> None:
        """What is sent from now on is from that user of the domain."""
        self.jid = f"{user}@{self.domain}/rig"
        self._stanza_attributes = f"from='{self.jid}'"

    async def bind(self, resource: str | None = None) -> None:
        wish = f"<resource>{escape(resource)}</resource>" if resource else ""
        answer = await self.iq("set", f"<bind xmlns='{BIND}'>{wish}</bind>")
        self.jid = answer.findtext(f".//{{{BIND}}}jid") or ""

    async def enable_smacks(self) -> None:
        await self.send(f"<enable xmlns='{SM}' resume='true'/>")
        enabled = await self.expect(lambda e: e.tag == f"{{{SM}}}enabled")
        self.resume_id = enabled.get("id", "")
        self.received = 0

    async def resume(self, old: Client) -> None:
        """Takes over the session of a client whose connection is gone."""
        await self.send(f"<resume xmlns='{SM}' previd='{old.resume_id}' h='{old.received}'/>")
        answer = await self.expect(lambda e: e.tag in (f"{{{SM}}}resumed", f"{{{SM}}}failed"))
        assert answer.tag == f"{{{SM}}}resumed", ET.tostring(answer)
        self.jid = old.jid

    async def set_token(self, token: str | None = None, **user: Any) -> None:
        """Gives the session what Jitsi's modules put there: on a host with authentication by token, what the token
        says; on any other, what the user wrote."""
        payload = escape(json.dumps({"token": token, "user": user} if token else {"user": user}))
        await self.iq("set", f"<token xmlns='urn:rig:token'>{payload}</token>")

    # -- rooms

    async def begin_join(
        self,
        room: str,
        nick: str = "me",
        *,
        password: str | None = None,
        name: str | None = None,
        extra: str = "",
    ) -> None:
        """Asks to join and does not wait for the answer; `await_join` does."""
        secret = f"<password>{escape(password)}</password>" if password is not None else ""
        display = f"<nick xmlns='http://jabber.org/protocol/nick'>{escape(name)}</nick>" if name else ""
        to = quoteattr(f"{self.room_jid(room)}/{nick}")
        await self.send(f"<presence to={to}><x xmlns='{MUC}'>{secret}</x>{display}{extra}</presence>")

    async def await_join(self, room: str, within: float = 10.0) -> JoinResult:
        """Waits for the answer to a join and, if it is yes, for all that comes along with it."""
        room_jid, started = self.room_jid(room), time.monotonic()

        def is_answer(e: ET.Element) -> bool:
            if e.tag != f"{CLIENT}presence" or e.get("from", "").partition("/")[0] != room_jid:
                return False
            return e.get("type") == "error" or (e.get("type") is None and "110" in statuses(e))

        answer = await self.expect(is_answer, within)
        took = time.monotonic() - started
        if answer.get("type") == "error":
            return JoinResult(False, error_of(answer), took=took)
        await self.ping()
        item = answer.find(f"{MUC_USER}x/{MUC_USER}item")
        assert item is not None
        return JoinResult(
            True,
            None,
            statuses(answer),
            item.get("role"),
            item.get("affiliation"),
            self.json_messages(room),
            took,
        )

    async def join(
        self,
        room: str,
        nick: str = "me",
        *,
        password: str | None = None,
        name: str | None = None,
        extra: str = "",
        within: float = 10.0,
    ) -> JoinResult:
        await self.begin_join(room, nick, password=password, name=name, extra=extra)
        return await self.await_join(room, within)

    async def leave(self, room: str, nick: str = "me") -> None:
        to = quoteattr(f"{self.room_jid(room)}/{nick}")
        await self.send(f"<presence type='unavailable' to={to}/>")
        await self.ping()

    def room_jid(self, room: str) -> str:
        return room if "@" in room else f"{room}@{self.server.muc}"

    def json_messages(self, room: str) -> list[dict[str, Any]]:
        """Takes the JSON messages of a room out of the inbox."""
        room_jid, taken = self.room_jid(room), []
        for stanza in list(self.inbox):
            message = json_message(stanza)
            if message is not None and stanza.get("from") == room_jid:
                self.inbox.remove(stanza)
                taken.append(message)
        return taken

    # -- stanzas

    async def send(self, xml: str) -> None:
        """Sends one element; stanzas get their namespace, which only TCP's stream would give them."""
        await self.transport.send(re.sub(r"^<(presence|message|iq)\b", rf"<\1 {self._stanza_attributes}", xml))

    async def iq(self, kind: str, payload: str, to: str | None = None) -> ET.Element:
        """Sends an iq and gives its result."""
        number = f"iq{next(_numbers)}"
        address = f" to={quoteattr(to)}" if to else ""
        await self.send(f"<iq type='{kind}' id='{number}'{address}>{payload}</iq>")
        return await self.expect(lambda e: e.tag == f"{CLIENT}iq" and e.get("id") == number)

    async def ping(self) -> float:
        """Seconds that the server takes to answer; all that was sent to us before is in the inbox then."""
        started = time.monotonic()
        await self.iq("get", "<ping xmlns='urn:xmpp:ping'/>", to=self.server.domain)
        return time.monotonic() - started

    async def expect(self, wanted: Predicate, within: float = 10.0) -> ET.Element:
        """Takes the first stanza that fits out of the inbox, waiting for it if need be."""
        found: list[ET.Element] = []

        def look() -> bool:
            for stanza in self.inbox:
                if wanted(stanza):
                    found.append(stanza)
                    return True
            return self.gone.is_set()

        try:
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(look)
        except TimeoutError:
            inbox = [ET.tostring(s).decode()[:300] for s in self.inbox]
            raise AssertionError(f"{self.jid} waited and did not get it; its inbox: {inbox}") from None
        if not found:
            raise ConnectionGone
        self.inbox.remove(found[0])
        return found[0]

    def has(self, wanted: Predicate) -> bool:
        return any(wanted(stanza) for stanza in self.inbox)

    # -- the end

    async def close(self) -> None:
        """Closes the connection properly."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._reader = None
            with suppress(OSError, ConnectionError):
                await self.transport.close()

    async def fin(self) -> None:
        """TCP and WebSocket: closes the socket without a word."""
        assert isinstance(self.transport, (TcpTransport, WebSocketTransport))
        self.transport.half_close()
        await self.close()

    async def rst(self) -> None:
        """TCP only: resets the connection."""
        assert isinstance(self.transport, TcpTransport)
        self.transport.abort()
        await self.close()

    async def _read(self) -> None:
        try:
            while True:
                stanzas = await self.transport.receive()
                async with self._news:
                    self.inbox.extend(stanzas)
                    self.received += sum(s.tag.startswith(CLIENT) for s in stanzas)
                    self._news.notify_all()
        except (ConnectionGone, OSError, aiohttp.ClientError, ET.ParseError):
            pass
        finally:
            self.gone.set()
            async with self._news:
                self._news.notify_all()
