"""The link: a WebSocket on which the module asks questions, and on which orders go down to it.

handshake (token, no Origin, subprotocol) -> hello of the module, then ours -> messages, until one side ends

A message is a header line, `KIND ID [WORD ...]`, and a body that goes byte for byte. An answer has the ID of its
question. What memory can answer is answered in the reader itself; anything else is a task. All that is sent in one turn
of the event loop is one write. A module that does not read is not read from: the reader waits until its answers are
taken.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from sidecar import __version__
from sidecar.clock import Clock
from sidecar.core.model import Answer, Endpoint, Kind, Source
from sidecar.core.wire import BODY_LIMIT
from sidecar.facts import Crashed, Emit, LinkChanged, LinkIgnored, Notice, Resolved
from sidecar.web.auth import check_token, is_one_of, sent_token
from sidecar.web.hosts import Host, Hosts
from sidecar.web.questions import Exchange, Questions
from sidecar.web.requests import CALLED, Route
from sidecar.web.responses import Problem, Renderer, document_of, nothing_usable

PROTOCOL = "prosody-sidecar.v1"
"""The subprotocol: a module or sidecar of another one is served over HTTP."""

FRAME_LIMIT = 1024 * 1024
"""Bytes of a message of the module; a longer one ends the link."""

HELLO_WITHIN = 5.0
CLOSE_WITHIN = 1.0
"""Seconds for the closing handshake; also for a module to say that it has heard `bye`."""

PING_AT, GIVE_UP_AT = 5, 15
"""Sweeps, one a second, since the last message of a module, after which it is sent a ping, and its link is given up.
Sweeps and not seconds: if this process itself has stood still, it reads what came meanwhile before the next one."""

UNREAD_LIMIT = 64 * 1024
"""Bytes sent after which whoever sends looks whether the module reads, and waits if it does not."""

MOST_LINKS = 64
MOST_UNDER_WAY = 2000
"""Questions and events of one link; one more is answered 503. The module itself stops at 1000."""

MOST_IGNORED = 1000
"""Messages of one link that mean nothing here, before it is ended."""

IMPATIENT = (
    "prosody: the module on {host} waits {timeout:g} s for an answer (muc_webhook_timeout), and an answer may take "
    "{deadline:g} s here (the longest deadline in endpoints): then the user is refused before the answer is there. Set "
    "muc_webhook_timeout above {deadline:g} in Prosody's config and restart Prosody, or lower the deadline and reload"
)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ROUTES = {
    **{str(endpoint): Route(endpoint) for endpoint in CALLED},
    "join": Route(Endpoint.VALIDATE_ACCESS),
    "join config": Route(Endpoint.VALIDATE_ACCESS, config_too=True),
}
"""The endpoints by the words of a header."""

_DIGEST = 32
"""Hexadecimal digits, behind `join config`: of the config that the module has already."""

_Socket = web.WebSocketResponse[Literal[False]]


class Control(Protocol):
    """Who gives the orders."""

    def acknowledged(self, order_id: str, outcome: dict[str, Any], host: str) -> None:
        """The module of this host has carried out an order, or could not."""
        ...

    def module_connected(self, host: str, boot: str, *, has_events: bool) -> None:
        """A module's link is up."""
        ...


@dataclass(frozen=True, slots=True)
class Module:
    """The module at the other end of a link, as its hello names it."""

    host: str
    """The domain of the MUC component."""
    boot: str
    """Another one after each start of its Prosody."""
    version: str
    timeout: float | None = None
    """Seconds that it waits for an answer, if it says so: its muc_webhook_timeout."""
    has_events: bool = False
    """Whether it has events from before the start of its Prosody, which it sends now."""


class Links:
    """All links."""

    def __init__(self, questions: Questions, hosts: Hosts, clock: Clock, emit: Emit) -> None:
        """No link yet."""
        self.control: Control | None = None
        self._hosts = hosts
        self._questions = questions
        self._clock = clock
        self._emit = emit
        self._render = Renderer(clock)
        self._path = f"{questions.settings.prefix}/link"
        self._links: list[_Link] = []
        self._ending = False

    def is_meant(self, request: web.BaseRequest) -> bool:
        """Whether a request is for the link."""
        return request.path == self._path

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a link until it ends; or refuse it."""
        try:
            self._check(request)
        except Problem as problem:
            self._emit(Resolved("other", problem.status, 0.0, problem=str(problem)))
            return self._render.problem(problem)
        socket: _Socket = web.WebSocketResponse(
            protocols=[PROTOCOL], compress=False, max_msg_size=FRAME_LIMIT, decode_text=False, timeout=CLOSE_WITHIN
        )
        link = _Link(socket, request, self._clock.monotonic())
        self._links.append(link)
        reason = "closed"
        try:
            try:
                await socket.prepare(request)
            except ConnectionError:  # the module is gone; aiohttp cannot end a socket that was never opened
                return web.Response()
            reason = await self._serve(link)
        except ConnectionError:
            reason = "the connection broke"
        except Exception as error:  # noqa: BLE001 - the module is served again over the next link, or over HTTP
            self._emit(Crashed("link", error))
            reason = "defect"
        finally:
            self._links.remove(link)
            link.has_heard_bye.set()
            if link.module is not None:
                self._hosts.left(link.host)
                self._emit(_changed(link.module, up=False, reason=reason))
        return socket

    def connected(self) -> list[Module]:
        """The modules whose links are up, one for each host."""
        return list({link.module.host: link.module for link in self._links if link.module is not None}.values())

    def send(self, order_id: str, document: bytes, host: str = "") -> bool:
        """Send an order to the module of this host, or to the only one. False: it is not connected."""
        fitting = [each for each in self._links if each.module is not None and host in ("", each.module.host)]
        if not fitting:
            return False
        fitting[-1].send(f"order {order_id}", document)  # the latest: a reload has made a new link
        return True

    def impatient(self) -> list[str]:
        """A sentence about each module that may stop waiting before its answer is there."""
        return [*filter(None, map(self._impatience, self.connected()))]

    def _impatience(self, module: Module) -> str:
        deadline = self._questions.settings.deadline
        if module.timeout is None or module.timeout > deadline:
            return ""
        return IMPATIENT.format(host=module.host, timeout=module.timeout, deadline=deadline)

    def document(self) -> list[dict[str, Any]]:
        """The links, for the status."""
        now, tokens = self._clock.monotonic(), self._questions.settings.tokens
        return [
            {
                "host": link.module.host,
                "boot": link.module.boot,
                "version": link.module.version,
                "timeout": link.module.timeout,
                "up_seconds": round(now - link.began_at, 1),
                "under_way": len(link.tasks),
                "old_token": link.token in tokens[1:],
            }
            for link in self._links
            if link.module is not None
        ]

    def sweep(self) -> None:
        """Ask the modules that are silent for a sign of life, and give up the links of those that give none. End the
        links that were opened with a token that no longer counts."""
        tokens = self._questions.settings.tokens
        for link in self._links:
            if tokens and not link.why and not is_one_of(link.token, tokens):
                link.why = "its token no longer counts"
                link.ending = asyncio.get_running_loop().create_task(self._end(link, CLOSE_WITHIN))
            link.silent_sweeps += 1
            if link.silent_sweeps >= GIVE_UP_AT:
                link.abort()
            elif link.silent_sweeps == PING_AT and link.module is not None:
                link.send("ping 0")

    async def end(self, seconds: float) -> None:
        """Let the modules go: no new links, answers to what is under way for so long, then close."""
        self._ending = True
        await asyncio.gather(*(self._end(link, seconds) for link in self._links))

    async def _end(self, link: _Link, seconds: float) -> None:
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(CLOSE_WITHIN):
                link.send("bye 0")
                link.send("ping bye")  # what was sent before the pong is here when the pong is
                await link.has_heard_bye.wait()
            async with asyncio.timeout(seconds):
                while link.tasks:
                    await asyncio.wait(link.tasks)
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(2 * CLOSE_WITHIN):
                await link.close(WSCloseCode.GOING_AWAY)
        link.abort()

    def _check(self, request: web.BaseRequest) -> None:
        """Raises Problem unless a module may open a link."""
        headers = request.headers
        check_token(request, self._questions.settings.tokens)
        if hdrs.ORIGIN in headers:
            raise Problem(403, "a page in a browser has no business here")
        if request.method != hdrs.METH_GET:
            raise Problem(405, f"{request.method} is not understood here; use GET", Allow="GET")
        offered = [each.strip() for each in headers.get(hdrs.SEC_WEBSOCKET_PROTOCOL, "").split(",")]
        if headers.get(hdrs.UPGRADE, "").lower() != "websocket" or PROTOCOL not in offered:
            raise Problem(426, f"use WebSocket with the subprotocol {PROTOCOL}", Upgrade="websocket")
        if not web.WebSocketResponse(protocols=[PROTOCOL]).can_prepare(request):
            raise Problem(400, "the WebSocket handshake is not valid")
        if self._ending or len(self._links) >= MOST_LINKS:
            why = "the sidecar is stopping" if self._ending else f"there are {MOST_LINKS} links"
            raise Problem(503, f"{why}; try again", Retry_After="1")

    async def _serve(self, link: _Link) -> str:
        """Read one link to its end; returns why it ended."""
        module = await _hello(link)
        if module is None:
            await link.close(WSCloseCode.POLICY_VIOLATION, b"no hello")
            return "no hello"
        link.module, link.host = module, self._hosts.linked(module.host)
        link.send("hello 0", json.dumps({"version": __version__, "configDigests": True}).encode())
        self._emit(_changed(module, up=True))
        if sentence := self._impatience(module):
            self._emit(Notice(sentence, "warning"))
        if self.control is not None:
            self.control.module_connected(module.host, module.boot, has_events=module.has_events)
        async for message in link.socket:
            link.silent_sweeps = 0
            if message.type is WSMsgType.TEXT:
                self._take(link, message.data)
            else:
                self._ignore(link, "it is no text")
            if link.unread > UNREAD_LIMIT:
                await link.drain()
            if link.ignored > MOST_IGNORED:
                await link.close(WSCloseCode.POLICY_VIOLATION, b"too much that means nothing")
        return link.why or f"closed with code {link.socket.close_code}"

    def _take(self, link: _Link, message: bytes) -> None:
        head, _, body = message.partition(b"\n")
        kind, _, rest = head.decode("ascii", "replace").partition(" ")
        ident, _, words = rest.partition(" ")
        if _ID.fullmatch(ident) is None:
            self._ignore(link, "it has no ID")
        elif kind in ("ask", "event"):
            self._ask(link, kind, ident, words, body)
        elif kind == "ping":
            link.send(f"pong {ident}")
        elif kind == "pong":
            if ident == "bye":
                link.has_heard_bye.set()
        elif kind == "done":
            self._done(link, ident, body)
        else:
            self._ignore(link, "its kind is unknown")

    def _ask(self, link: _Link, kind: str, ident: str, words: str, body: bytes) -> None:
        exchange, questions = self._questions.begin(), self._questions
        link.host.asked_at = exchange.received_at
        words, known = _known_config(words)
        route = _ROUTES.get(words)
        if route is None or (route.endpoint.kind is Kind.EVENT) != (kind == "event"):
            questions.refuse(exchange, Problem(404, f"there is no such endpoint; there are {', '.join(_ROUTES)}"))
        elif len(body) > BODY_LIMIT:
            questions.refuse(exchange, Problem(413, f"the body is longer than {BODY_LIMIT} bytes"))
        elif len(link.tasks) >= MOST_UNDER_WAY:
            questions.refuse(exchange, Problem(503, f"{MOST_UNDER_WAY} questions are under way on this link"))
        elif not questions.answer_at_once(exchange, route, body, key=ident):
            task = asyncio.get_running_loop().create_task(self._complete(link, ident, exchange, known))
            link.tasks.add(task)
            task.add_done_callback(link.tasks.discard)
            return
        link.send(*_answer(kind, ident, exchange, known))

    async def _complete(self, link: _Link, ident: str, exchange: Exchange, known: str) -> None:
        await self._questions.complete(exchange)
        link.send(*_answer("event" if exchange.event is not None else "ask", ident, exchange, known))
        if link.unread > UNREAD_LIMIT:
            with suppress(ConnectionError):  # the module asks again, or sends the event again
                await link.drain()

    def _done(self, link: _Link, order_id: str, body: bytes) -> None:
        try:
            outcome = json.loads(body)
        except (ValueError, RecursionError):
            outcome = None
        if self.control is None or link.module is None or not isinstance(outcome, dict):
            self._ignore(link, "it is no outcome of an order")
        else:
            self.control.acknowledged(order_id, outcome, link.module.host)

    def _ignore(self, link: _Link, reason: str) -> None:
        link.ignored += 1
        self._emit(LinkIgnored(reason))


class _Link:
    """One link."""

    def __init__(self, socket: _Socket, request: web.BaseRequest, now: float) -> None:
        self.socket = socket
        self.module: Module | None = None
        self.host = Host()
        self.token = sent_token(request)
        self.why = ""
        """Why we have ended it."""
        self.tasks: set[asyncio.Task[None]] = set()
        """What is being answered."""
        self.ending: asyncio.Task[None] | None = None
        """Kept, since the event loop keeps no task."""
        self.began_at = now
        self.silent_sweeps = 0
        self.ignored = 0
        self.unread = 0
        """Bytes sent since the module was last seen to read."""
        self.has_heard_bye = asyncio.Event()
        self._request = request
        self._frames: list[bytes] = []

    def send(self, head: str, body: bytes = b"") -> None:
        """Send a message, in one write with all others of this turn of the event loop. A link that has ended sends
        nothing."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self._write)
        message = b"%b\n%b" % (head.encode(), body)
        self._frames += (_head_of_frame(len(message)), message)
        self.unread += len(message)

    def _write(self) -> None:
        frames, self._frames = self._frames, []
        transport = self._request.transport
        if frames and transport is not None and not transport.is_closing() and not self.socket.closed:
            transport.write(b"".join(frames))

    async def drain(self) -> None:
        """Wait while too much is unread. Raises ConnectionError."""
        self._write()
        self.unread = 0
        await self._request.writer.drain()

    async def close(self, code: WSCloseCode, message: bytes = b"") -> None:
        """End it with the closing handshake, after all that was sent."""
        self._write()
        await self.socket.close(code=code, message=message)

    def abort(self) -> None:
        """End it without waiting for the other side."""
        if self._request.transport is not None:
            self._request.transport.abort()


def _head_of_frame(size: int) -> bytes:
    """The head of a whole, unmasked text message of so many bytes (RFC 6455, 5.2). The library makes a write of each
    message; here all of one turn are one."""
    if size < 126:
        return bytes((0x81, size))
    return _SHORT.pack(0x81, 126, size) if size < 0x10000 else _LONG.pack(0x81, 127, size)


_SHORT, _LONG = struct.Struct("!BBH"), struct.Struct("!BBQ")


async def _hello(link: _Link) -> Module | None:
    """The module that the first message names; None: it names none."""
    try:
        message = await link.socket.receive(HELLO_WITHIN)
        if message.type is not WSMsgType.TEXT or not message.data.startswith(b"hello 0\n"):
            return None
        hello = json.loads(message.data.partition(b"\n")[2])
        names = [hello[name] for name in ("host", "boot", "version")]
        timeout, events = hello.get("timeout"), hello.get("events")
    except (TimeoutError, ValueError, RecursionError, KeyError, TypeError):
        return None
    if not all(isinstance(name, str) and 0 < len(name) <= 256 and name.isprintable() for name in names):
        return None
    waits = timeout if type(timeout) in (int, float) and 0 < timeout < math.inf else None
    host, boot, version = names
    return Module(host, boot, version, waits, type(events) is int and events > 0)


def _known_config(words: str) -> tuple[str, str]:
    """The words of a question, and the digest of the config that the module has already, or nothing."""
    endpoint, _, digest = words.rpartition(" ")
    return (endpoint, digest) if endpoint == "join config" and len(digest) == _DIGEST else (words, "")


def _answer(kind: str, ident: str, exchange: Exchange, known: str) -> tuple[str, bytes]:
    """Header and body. With a config, the header has its status and the length of the decision before it. It ends with
    `old` if the answer, without a config, is not one that the backend has given now. A config that the module has
    already is not in the body: its status is 304."""
    word = "taken" if kind == "event" else "answer"
    if exchange.problem is not None:
        return f"{word} {ident} {exchange.problem.status}", document_of(exchange.problem)
    assert exchange.answer is not None, "an exchange ends with an answer or a problem"
    body, config = _body(exchange.answer), exchange.config
    if config is None:
        old = " old" if exchange.answer.source in _OLD else ""
        return f"{word} {ident} {exchange.answer.status}{old}", body
    content, status = _body(config), config.status
    if known and status == 200 and hashlib.sha256(content).hexdigest().startswith(known):
        content, status = b"", 304
    return f"{word} {ident} {exchange.answer.status} {status} {len(body)}", body + content


_OLD = (Source.STALE, Source.POLICY)


def _body(answer: Answer) -> bytes:
    return answer.body or (document_of(nothing_usable(answer)) if answer.status == 503 else b"")


def _changed(module: Module, *, up: bool, reason: str = "") -> LinkChanged:
    return LinkChanged(module.host, module.boot, module.version, up, reason)
