"""The connections to the backend, and which of them may carry a question.

In HTTP/1.1, only the order on a connection says which answer belongs to which question. So a connection on which a byte
came that no question asked for is closed before it is used: an answer that is longer than it says, a second answer, an
answer to nothing. A connection also has a longest age, so that the backend's name may get another address.
"""

from __future__ import annotations

import asyncio
import functools
import math
import select
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import LineTooLong

from sidecar.backend.names import Names
from sidecar.clock import unread_for

if TYPE_CHECKING:
    from aiohttp.connector import Connection

IDLE_CONNECTION = 4.0
"""Seconds an unused connection is kept: less than the five seconds after which common servers close theirs."""

OLDEST_CONNECTION = 10.0
"""Seconds after which a connection carries no further question."""

ADDRESS_KNOWN = 2
"""Seconds in which new connections use the addresses of one DNS lookup."""

HEAD_LIMIT = 128 * 1024
"""Bytes of an answer's status line and headers, twice what a backend may send: no refusal is lost to a limit."""

HEADERS_LIMIT = 1000


class Exchange:
    """One question and its answer on a connection, by the event loop's clock."""

    __slots__ = ("arrived_at", "sent_at")

    def __init__(self, now: float) -> None:
        """The question is sent now."""
        self.sent_at = self.arrived_at = now

    @property
    def took(self) -> float:
        """Seconds until the last part of the answer that was read had arrived."""
        return max(0.0, self.arrived_at - self.sent_at)


class Response(aiohttp.ClientResponse):
    """aiohttp's response, which can also say how long it took."""

    exchange: Exchange | None = None

    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Read the head. Afterwards the connection may have another question already."""
        protocol = connection.protocol
        assert isinstance(protocol, _Protocol)
        self.exchange = protocol.exchange
        return await super().start(connection)


class SpokeUnasked(aiohttp.ClientConnectionError):
    """A new connection was closed, or had data, before anything was sent on it."""


class Pool(aiohttp.TCPConnector):
    """Opens connections and keeps them. How many there are at a time is for the bulkhead to say."""

    def __init__(self) -> None:
        """Without connections. Must be made inside a running loop."""
        self._names = Names()
        self.certificate_end = math.inf
        """Unix time at which the certificate of the newest connection ends; infinite without TLS."""
        super().__init__(limit=0, keepalive_timeout=IDLE_CONNECTION, ttl_dns_cache=ADDRESS_KNOWN, resolver=self._names)
        protocol: Callable[..., ResponseHandler] = _Protocol
        self._factory = functools.partial(protocol, loop=self._loop)

    async def connect(self, *args: Any, **options: Any) -> Connection:
        """A connection that nothing has come on. A failure to connect forgets the address at once."""
        while True:
            try:
                connection = await super().connect(*args, **options)
            except (aiohttp.ClientConnectorError, TimeoutError):
                self.clear_dns_cache()
                raise
            protocol = connection.protocol
            assert isinstance(protocol, _Protocol)
            new, clean = protocol.is_new, protocol.is_clean()
            if new:
                self.certificate_end = _certificate_end(protocol.transport)
            if clean and (new or not protocol.is_old()):
                return connection
            connection.close()
            if new:
                raise SpokeUnasked

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and end a lookup that is under way."""
        await super().close(abort_ssl=abort_ssl)
        await self._names.close()


def _certificate_end(transport: asyncio.Transport | None) -> float:
    certificate = None if transport is None else transport.get_extra_info("peercert")
    end = certificate.get("notAfter") if certificate else None
    return math.inf if end is None else float(ssl.cert_time_to_seconds(end))


class _Protocol(ResponseHandler):
    """One connection: aiohttp's own protocol, which can also say whether it may be used again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._opened_at = loop.time()
        self.exchange: Exchange | None = None
        self._head_bytes: int | None = None
        """Received of an answer whose head is not complete; None: there is none."""

    @property
    def is_new(self) -> bool:
        """Whether it has not carried a question yet."""
        return self._parser is None

    def is_old(self) -> bool:
        """Whether it must be replaced by one to an address that is asked for again."""
        return self._loop.time() - self._opened_at > OLDEST_CONNECTION

    def is_clean(self) -> bool:
        """Whether no byte came that belongs to no question: not here, not in the parser, not in the kernel."""
        return not (self.should_close or self._has_begun_an_answer() or self._is_readable())

    def _has_begun_an_answer(self) -> bool:
        """Whether the parser has a part of an answer. It is at its end of life: each question gets a new one."""
        if self._parser is None:
            return False
        try:
            return self._parser.feed_eof() is not None
        except Exception:  # noqa: BLE001 - the part that it has is not even HTTP
            return True

    def _is_readable(self) -> bool:
        """Whether the kernel has bytes, or the end of the connection, that the event loop has not read yet."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        if self.is_new and transport.get_extra_info("ssl_object") is not None:
            return False  # a server of TLS 1.3 sends session tickets on a new connection
        poll = select.poll()
        poll.register(transport.get_extra_info("socket"), select.POLLIN)
        return bool(poll.poll(0))

    def set_response_params(self, **params: Any) -> None:
        """A question is about to be sent."""
        self.exchange = Exchange(self._loop.time())
        self._head_bytes = 0
        super().set_response_params(**params)

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The head of an answer is complete."""
        self._head_bytes = None
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Read, up to the limit of a head: aiohttp limits each header, and their number."""
        if self.exchange is not None:
            self.exchange.arrived_at = self._loop.time() - unread_for(self.transport)
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT and self.transport is not None:
                self.set_exception(LineTooLong("the head", str(HEAD_LIMIT)))
                self.transport.close()
