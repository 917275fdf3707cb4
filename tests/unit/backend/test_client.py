"""The HTTP client of the backend: what goes out byte for byte, and which outcome each kind of answer is."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from hypothesis import given
from hypothesis import strategies as st
from pytest_aiohttp import AiohttpServer

from sidecar.backend.client import BODY_LIMIT, Backend, Target
from sidecar.core.model import Endpoint, Event, Failure, Misconfigured, Outcome, Rejected, Replied, Unavailable, Verdict
from sidecar.core.wire import query_of, read_message
from tests.rig.raw import CLOSE, RawBackend, http
from tests.unit.builders import ALLOW, DENY, a_query
from tests.unit.disk import FakeClock

Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """A meeting service that answers as a test wants, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Answering = says(ALLOW)
        self.asked: list[tuple[str, bytes, dict[str, str]]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, await request.read(), dict(request.headers)))
        return await self.answer(request)


def says(body: bytes, status: int = 200, **headers: str) -> Answering:
    """This answer."""

    async def answer(_: web.Request) -> web.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **named})

    return answer


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
async def backend(service: Service, aiohttp_server: AiohttpServer) -> AsyncIterator[Backend]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    server = await aiohttp_server(app)
    async with Backend(Target(str(server.make_url("/api")), "s3cret"), FakeClock()) as client:
        yield client


async def ask(backend: Backend, seconds: float = 5.0) -> Outcome:
    return await backend.ask(a_query()._replace(body=b'{"a" : 1}', traceparent="00-1-2-01"), seconds)


@pytest.mark.parametrize(
    ("forwards", "token", "sent"),
    [
        (True, "ey.J~a-b_c+/==", "Bearer ey.J~a-b_c+/=="),
        (False, "eyJ", None),
        (True, "two words", None),
        (True, "a\r\nX-Webhook-Secret: mine", None),
        (True, "tökén", None),
        (True, "a" * 8193, None),
        (True, "", None),
        (True, 17, None),
        (True, {"a": 1}, None),
        (True, None, None),
    ],
)
async def test_a_users_token_is_sent_on_if_the_operator_wants_it_and_a_header_can_hold_it(
    backend: Backend, service: Service, forwards: bool, token: object, sent: str | None
) -> None:
    backend.target = replace(backend.target, forward_token=forwards)
    body = json.dumps({"roomName": "standup", "userJid": "ann@example.org", "bearerToken": token}).encode()
    query = query_of(Endpoint.VALIDATE_ACCESS, read_message(Endpoint.VALIDATE_ACCESS, body), 0.0, "", frozenset())
    assert isinstance(await backend.ask(query, 5.0), Replied)
    ((_, received, headers),) = service.asked
    assert (received, headers.get("Authorization"), headers["X-Webhook-Secret"]) == (body, sent, "s3cret")
    assert not isinstance(token, str) or not token or token not in repr(query)


async def test_a_question_goes_out_byte_for_byte_with_the_headers_of_the_contract(
    backend: Backend, service: Service
) -> None:
    outcome = await ask(backend)
    assert outcome == Replied(200, ALLOW, Verdict.ALLOW)
    ((path, body, headers),) = service.asked
    assert (path, body) == ("/api/validate-access", b'{"a" : 1}')
    assert headers["X-Webhook-Secret"] == "s3cret"
    assert headers["traceparent"] == "00-1-2-01"
    assert headers["Accept-Encoding"] == "identity"
    assert "Idempotency-Key" not in headers


async def test_an_event_has_its_idempotency_key_and_any_2xx_takes_it(backend: Backend, service: Service) -> None:
    service.answer = says(b"", 204)
    event = Event(Endpoint.ROOM_CREATED, "standup", b"{}", "k-1", 1.7e9)
    assert isinstance(await backend.deliver(event, 5.0), Replied)
    assert service.asked[0][2]["Idempotency-Key"] == "k-1"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (says(DENY, 403), Rejected),
        (says(b"", 401), Misconfigured),
        (says(b"oops", 500), Unavailable),
        (says(b"<html>"), Unavailable),
        (says(b"", 302, Location="/elsewhere"), Unavailable),
        (says(b"x" * (BODY_LIMIT + 1)), Unavailable),
    ],
)
async def test_each_kind_of_answer_is_an_outcome(
    backend: Backend, service: Service, answer: Answering, outcome: type[Outcome]
) -> None:
    service.answer = answer
    assert isinstance(await ask(backend), outcome)
    assert len(service.asked) == 1  # no redirect is followed


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
    ],
)
async def test_both_forms_of_retry_after_are_seconds(
    backend: Backend, service: Service, header: str, seconds: float | None
) -> None:
    service.answer = says(b"", 503, Retry_After=header)
    outcome = await ask(backend)
    assert isinstance(outcome, Unavailable)
    assert outcome.retry_after == seconds


DATE = r"(Mon,|Fri,)? ?(0|31|99)?( |-)(Dec|Foo)?( |-)(0001|9999|1e9|٣)? ?(23:59:59|24:60:61)? ?(GMT|-0000|\+9999|;)?"


@given(st.from_regex(DATE, fullmatch=True) | st.text())
def test_no_retry_after_is_too_strange(header: str) -> None:
    seconds = Backend(Target("http://example.com"), FakeClock())._retry_after(header)
    assert seconds is None or 0 <= seconds < 1e12


async def test_a_backend_with_an_ipv6_address_is_asked(service: Service) -> None:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    async with TestServer(app, host="::1") as server:
        url = f"http://[::1]:{server.port}/api"
        async with Backend(Target(url), FakeClock()) as client:
            assert isinstance(await ask(client), Replied)
            assert service.asked[0][2]["Host"] == f"[::1]:{server.port}"


async def test_cache_control_counts_only_where_it_is_honoured(backend: Backend, service: Service) -> None:
    service.answer = says(ALLOW, Cache_Control="no-store")
    honoured = await ask(backend)
    backend.target = Target(backend.target.url, honour_cache_control=False)
    ignored = await ask(backend)
    assert isinstance(honoured, Replied)
    assert isinstance(ignored, Replied)
    assert (honoured.cache_control.no_store, ignored.cache_control.no_store) == (True, False)


async def test_an_answer_that_takes_too_long_is_a_timeout(backend: Backend, service: Service) -> None:
    never = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    service.answer = hang
    outcome = await ask(backend, seconds=0.05)
    never.set()
    assert isinstance(outcome, Unavailable)
    assert outcome.failure is Failure.TIMEOUT


async def test_a_connection_that_breaks_is_a_reset(backend: Backend, service: Service) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    service.answer = hang_up
    outcome = await ask(backend)
    assert isinstance(outcome, Unavailable)
    assert outcome.failure is Failure.RESET


async def test_a_refused_connection_is_unsent() -> None:
    async with Backend(Target(f"http://127.0.0.1:{unused_port()}"), FakeClock()) as backend:
        outcome = await ask(backend)
    assert isinstance(outcome, Unavailable)
    assert outcome.failure is Failure.UNSENT


async def test_no_cookie_is_kept(backend: Backend, service: Service) -> None:
    service.answer = says(ALLOW, Set_Cookie="a=b")
    await ask(backend)
    await ask(backend)
    assert all("Cookie" not in headers for _, _, headers in service.asked)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(
    backend: Backend, service: Service, aiohttp_server: AiohttpServer, status: int
) -> None:
    elsewhere = Service()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", elsewhere.handle)
    server = await aiohttp_server(app)
    service.answer = says(ALLOW, status, Location=str(server.make_url("/validate-access")))
    assert await ask(backend) == Unavailable(f"the backend answered {status}", status=status)
    assert (len(service.asked), elsewhere.asked) == (1, [])


SECRET = "s3cret-word"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"\xef\xbb\xbf" + ALLOW), "the body of the 200 begins with a byte order mark, which must not be there"),
        (
            http(gzip.compress(ALLOW), headers=["Content-Encoding: gzip"]),
            "the body of the 200 is compressed (gzip), although the request asks for no compression",
        ),
        (
            http(b"\x0b\x02", headers=["Content-Encoding: br"]),
            "the body of the 200 is compressed (br), although the request asks for no compression",
        ),
        (http(ALLOW.decode().encode("utf-16")), "the body of the 200 is UTF-16 or UTF-32, and must be UTF-8"),
        (http(ALLOW.decode().encode("utf-16-le")), "the body of the 200 is UTF-16 or UTF-32, and must be UTF-8"),
        (
            http('{"reason":"é s3cret-word"}'.encode("latin-1")),
            "the body of the 200 is not UTF-8, but perhaps Latin-1 (byte 12)",
        ),
        (
            http(b'{"s3cret-word":NaN,"allowed":true}'),
            "the body of the 200 is not usable JSON: NaN is not a JSON value",
        ),
        (http(b'{"x":"s3cret-word'), "the body of the 200 is cut off: it ends in the middle of the JSON"),
        (http(b'{"allowed":true,"x":'), "the body of the 200 is cut off: it ends in the middle of the JSON"),
        (http(b'{"x":"s3cret-word \xc3'), "the body of the 200 is cut off in the middle of a character"),
        (http(b"<html>s3cret-word</html>"), "the body of the 200 is HTML or XML, and must be JSON"),
        (http(b""), "the body of the 200 is empty"),
        (http(ALLOW + ALLOW), "the body of the 200 has more after the end of the JSON (character 31)"),
        (http(b"{s3cret-word}"), None),
        (http(b"[" * 100_000), "the body of the 200 is nested too deeply"),
        (http(b'["s3cret-word"]'), "the body of the 200 is an array, and must be a JSON object"),
        (http(ALLOW, length=100), "the answer is cut off: the connection ended before the body was complete"),
        (b"s3cret-word\r\n\r\n", "not an HTTP answer, or longer than its Content-Length"),
        (http(ALLOW + b"s3cret-word", length=30), "not an HTTP answer, or longer than its Content-Length"),
        (b"", "the backend closed the connection without an answer"),
    ],
)
async def test_an_answer_that_cannot_be_read_says_why_and_quotes_nothing(answer: bytes, reason: str | None) -> None:
    async with RawBackend(lambda _: answer + CLOSE) as service, Backend(Target(service.url), FakeClock()) as backend:
        outcome = await ask(backend)
    assert isinstance(outcome, Unavailable)
    assert outcome.reason == reason or reason is None
    assert SECRET not in outcome.reason
