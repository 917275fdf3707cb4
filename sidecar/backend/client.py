"""The HTTP client of the backend: one question out, one outcome back. No network error is raised from here.

Bodies are passed on byte for byte: no cookies, no redirects, no decompression; size and time are bounded. No other file
sends HTTP requests to the backend.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hmac
import math
import ssl
from dataclasses import dataclass, field
from functools import lru_cache

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from sidecar import __version__
from sidecar.backend.own_failures import is_ours
from sidecar.backend.pool import HEAD_LIMIT, HEADERS_LIMIT, Pool, Response, SpokeUnasked
from sidecar.clock import Clock
from sidecar.core.classify import classify
from sidecar.core.model import Endpoint, Event, Failure, Kind, Misconfigured, Outcome, Query, Unavailable

BODY_LIMIT = 1024 * 1024
"""Bytes of an answer; a longer one counts as none."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the backend is, and the credentials for it."""

    url: str
    """Without a slash at the end; the endpoint's name is appended."""
    secret: str | None = field(default=None, repr=False)
    connect_timeout: float = 1.0
    honour_cache_control: bool = True
    tls: ssl.SSLContext | None = field(default=None, compare=False)
    """None: the system's trust store."""
    tls_files: str = ""
    """A digest of the files that `tls` was made from."""
    signing_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """Keys for the signature headers: one, or two while the backend's key is changed; none: not signed."""
    forward_token: bool = False
    """Whether a user's token is sent as `Authorization: Bearer` too."""


class Backend:
    """The meeting service. `target` may be replaced at any time; the next question goes to the new one."""

    def __init__(self, target: Target, clock: Clock) -> None:
        """Connections are opened on demand, inside `async with`."""
        self.target = target
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._pool: Pool | None = None

    async def __aenter__(self) -> Backend:
        """Prepare the connection pool."""
        self._pool = Pool()
        self._session = aiohttp.ClientSession(
            connector=self._pool,
            response_class=Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"User-Agent": f"prosody-sidecar/{__version__}", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None),
            # Large enough that reading never pauses: what TLS holds meanwhile could come after the next question.
            read_bufsize=BODY_LIMIT,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
            max_headers=HEADERS_LIMIT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    @property
    def certificate_end(self) -> float:
        """Unix time at which the backend's certificate ends; infinite without TLS, or before the first connection."""
        return math.inf if self._pool is None else self._pool.certificate_end

    async def ask(self, query: Query, seconds: float) -> Outcome:
        """Send one question, and wait for the outcome at most so many seconds."""
        return await self._post(query.key.endpoint, query.body, query.traceparent, seconds, token=query.token)

    async def deliver(self, event: Event, seconds: float) -> Outcome:
        """Send one event, and wait for the outcome at most so many seconds."""
        return await self._post(event.endpoint, event.body, event.traceparent, seconds, event.idempotency_key)

    async def _post(
        self,
        endpoint: Endpoint,
        body: bytes,
        traceparent: str,
        seconds: float,
        idempotency_key: str = "",
        token: str = "",
    ) -> Outcome:
        target = self.target
        headers = self._headers(target, body, traceparent, idempotency_key)
        if token and target.forward_token:
            headers["Authorization"] = f"Bearer {token}"
        # A `room-created` that is delivered later is an event too: the backend only has to receive it.
        kind = Kind.EVENT if idempotency_key else endpoint.kind
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(target, f"{target.url}/{endpoint}", headers, body, kind)
        except TimeoutError:
            return Unavailable(f"no complete answer within {seconds:.1f} s", Failure.TIMEOUT)

    def _headers(self, target: Target, body: bytes, traceparent: str, idempotency_key: str) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if target.secret is not None:
            headers["X-Webhook-Secret"] = target.secret
        if target.signing_keys:
            message = idempotency_key or traceparent[3:52] or "unnamed"
            headers.update(signatures(target.signing_keys, message, int(self._clock.wall()), body))
        if traceparent:
            headers["traceparent"] = traceparent
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        return headers

    async def _exchange(self, target: Target, url: str, headers: dict[str, str], body: bytes, kind: Kind) -> Outcome:
        """One request and its response; every network error becomes an outcome."""
        assert self._session is not None, "Backend is used outside its `async with`"
        try:
            async with self._session.post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                ssl=target.tls if target.tls is not None else True,
                timeout=_connect_within(target.connect_timeout),
            ) as response:
                return await self._outcome(target, kind, response)
        except aiohttp.ClientConnectorCertificateError as error:
            return Misconfigured(f"the backend's certificate is not trusted: {_short(error.certificate_error)}")
        except aiohttp.ClientSSLError as error:
            return Unavailable(f"no TLS connection: {_short(error)}", Failure.UNSENT)
        except aiohttp.ClientConnectorError as error:
            lookup = isinstance(error, aiohttp.ClientConnectorDNSError)
            failure = Failure.OURS if is_ours(error, lookup=lookup) else Failure.UNSENT
            return Unavailable(f"no connection: {_short(error.strerror or error)}", failure)
        except aiohttp.ConnectionTimeoutError:
            return Unavailable(f"no connection within {target.connect_timeout:g} s", Failure.UNSENT)
        except SpokeUnasked:
            text = "the backend closed a new connection, or sent data on it, before it was asked"
            return Unavailable(text, Failure.UNSENT)
        except aiohttp.ClientPayloadError:
            text = "the answer is cut off: the connection ended before the body was complete"
            return Unavailable(text, Failure.RESET)
        except aiohttp.ServerDisconnectedError:
            return Unavailable("the backend closed the connection without an answer", Failure.RESET)
        except aiohttp.ClientOSError as error:
            return Unavailable(f"the connection broke: {_short(error.strerror or error)}", Failure.RESET)
        except (aiohttp.ClientError, ValueError) as error:
            return Unavailable(_not_http(error))

    async def _outcome(self, target: Target, kind: Kind, response: aiohttp.ClientResponse) -> Outcome:
        content = await _read(response)
        if content is None:
            return Unavailable(f"the body is over {BODY_LIMIT} bytes", status=response.status)
        headers = response.headers
        cache_control = ", ".join(headers.getall("Cache-Control", [])) if target.honour_cache_control else ""
        retry_after = self._retry_after(headers.get("Retry-After", ""))
        encoding = headers.get("Content-Encoding", "")
        exchange = response.exchange if isinstance(response, Response) else None
        took = None if exchange is None else exchange.took
        return classify(kind, response.status, content, cache_control, retry_after, encoding, took)

    def _retry_after(self, header: str) -> float | None:
        """Seconds from either form of `Retry-After`; None without one that can be read."""
        text = header.strip()
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            at = email.utils.parsedate_to_datetime(text).timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
        return max(0.0, at - self._clock.wall())


def signatures(keys: tuple[bytes, ...], message: str, at: int, body: bytes) -> dict[str, str]:
    """Headers with which a backend can verify the body and its sender: `X-Webhook-Signature`, and those of Standard
    Webhooks (standardwebhooks.com), which sign the time too. With two keys, each has two signatures and a space."""
    whole = f"{message}.{at}.".encode() + body
    return {
        "X-Webhook-Signature": " ".join(_hmac(key, body) for key in keys),
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{_hmac(key, whole)}" for key in keys),
    }


def _hmac(key: bytes, content: bytes) -> str:
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()


@lru_cache(maxsize=8)
def _connect_within(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=seconds)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body; None when it is over the limit. Then the connection is closed, if there is more to come."""
    if response.content.is_eof():  # it came together with the head, as most do
        whole = response.content.read_nowait()
        return whole if len(whole) <= BODY_LIMIT else None
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > BODY_LIMIT:
            response.close()
            return None
    return bytes(content)


def _not_http(error: BaseException) -> str:
    """What is wrong with bytes that are no HTTP answer. The library's own text quotes them, so it is not used."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LineTooLong) or "Too many headers" in str(cause):
            return f"the headers of the answer are over {HEAD_LIMIT} bytes, or more than {HEADERS_LIMIT}"
        cause = cause.__cause__
    return "not an HTTP answer, or longer than its Content-Length"


def _short(error: object) -> str:
    """Text from outside, on one line and capped."""
    return " ".join(str(error).split())[:200] or type(error).__name__
