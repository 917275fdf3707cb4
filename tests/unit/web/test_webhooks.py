"""The webhook listener: requests of Prosody in, answers of the resolver and the outbox out."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from secrets import token_hex
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient, AiohttpRawServer

from sidecar.clock import SystemClock
from sidecar.core.model import Answer, Endpoint, Source
from sidecar.errors import DiskError, OutboxFull
from sidecar.facts import Crashed, Fact, Resolved
from sidecar.web.hosts import Hosts
from sidecar.web.questions import Questions, WebhookSettings
from sidecar.web.webhooks import Webhooks
from tests.unit.builders import ALLOW
from tests.unit.web.engines import BY_BACKEND, JOIN, PREFIX, Engines


@pytest.fixture
def engines() -> Engines:
    return Engines()


@pytest.fixture
def facts() -> list[Fact]:
    return []


@pytest.fixture
def questions(engines: Engines, facts: list[Fact]) -> Questions:
    settings = WebhookSettings(PREFIX)
    return Questions(engines, engines, settings, SystemClock(), lambda size: "ab" * size, facts.append)


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(SystemClock())


Ask = Callable[..., Awaitable[ClientResponse]]


@pytest.fixture
async def ask(
    questions: Questions,
    hosts: Hosts,
    facts: list[Fact],
    aiohttp_raw_server: AiohttpRawServer,
    aiohttp_client: AiohttpClient,
) -> Ask:
    """Posts a join, or what else a test gives, to a path below the prefix."""
    webhooks = Webhooks(questions, hosts, SystemClock(), facts.append)
    client: TestClient[Any, Any] = await aiohttp_client(await aiohttp_raw_server(webhooks.handle))

    async def post(path: str, body: object = JOIN, **headers: str) -> ClientResponse:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(f"{PREFIX}/{path}", data=data, headers={"Content-Type": "application/json", **named})

    return post


async def test_a_decision_comes_back_as_the_resolver_gave_it(ask: Ask) -> None:
    response = await ask("validate-access")
    assert (response.status, await response.json()) == (200, {**json.loads(ALLOW), **BY_BACKEND})
    assert response.headers["Cache-Status"] == "prosody-sidecar; stored"
    assert response.content_type == "application/json"


@pytest.mark.parametrize(("patience", "is_old"), [(0.2, True), (5.0, False)])
async def test_a_request_that_prosody_has_given_up_in_the_kernel_is_as_old_as_it_is(
    questions: Questions, facts: list[Fact], aiohttp_raw_server: AiohttpRawServer, patience: float, *, is_old: bool
) -> None:
    questions.settings = WebhookSettings(PREFIX, patience=patience)
    server = await aiohttp_raw_server(Webhooks(questions, Hosts(SystemClock()), SystemClock(), facts.append).handle)
    body = json.dumps(JOIN)
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    with socket.create_connection((server.host, server.port)) as client:
        client.sendall(f"POST {PREFIX}/validate-access HTTP/1.1\r\n{head}\r\n\r\n{body}".encode())
        time.sleep(0.3)  # this process is late
        while not facts:
            await asyncio.sleep(0.001)
    (fact,) = facts
    assert isinstance(fact, Resolved)
    assert (fact.seconds > 0.25) is is_old


async def test_requests_that_come_together_are_all_decided_before_a_response_is_written(
    engines: Engines, aiohttp_raw_server: AiohttpRawServer
) -> None:
    loop, request = asyncio.get_running_loop(), f"POST {PREFIX}/validate-access HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    clients: list[socket.socket] = []
    answered = list[int]()

    def note(_: Fact) -> None:
        answered.append(len(select.select(clients, (), (), 0)[0]))

    questions = Questions(engines, engines, WebhookSettings(PREFIX), SystemClock(), token_hex, note)
    server = await aiohttp_raw_server(Webhooks(questions, Hosts(SystemClock()), SystemClock(), note).handle)
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(socket.create_connection((server.host, server.port)))
            client.setblocking(False)
            await loop.sock_sendall(client, request)
            assert await loop.sock_recv(client, 1000)
            clients.append(client)
        answered.clear()
        for client in clients:
            client.send(request)
        for client in clients:
            assert (await loop.sock_recv(client, 1000)).startswith(b"HTTP/1.1 415 ")
    assert answered == [0] * len(clients)


@pytest.mark.parametrize(
    ("source", "decided_by"),
    [(Source.BACKEND, "backend"), (Source.HIT, "memory"), (Source.STALE, "memory"), (Source.POLICY, "policy")],
)
async def test_a_decision_says_who_decided(ask: Ask, engines: Engines, source: Source, decided_by: str) -> None:
    engines.answers[Endpoint.VALIDATE_ACCESS] = Answer(200, ALLOW, source, True)
    assert (await (await ask("validate-access")).json())["decidedBy"] == decided_by


async def test_the_id_of_a_decision_is_that_of_the_trace(ask: Ask, facts: list[Fact]) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await (await ask("validate-access", traceparent=trace)).json()
    assert answer["decisionId"] == "0af7651916cd43dd8448eb211c80319c"
    (resolved,) = [fact for fact in facts if isinstance(fact, Resolved)]
    assert resolved.trace == trace


async def test_an_event_is_acknowledged_and_keeps_its_idempotency_key(ask: Ask, engines: Engines) -> None:
    response = await ask("user-joined", Idempotency_Key="k-1")
    assert (response.status, await response.json()) == (202, {"accepted": True})
    assert [(event.endpoint, event.idempotency_key) for event in engines.events] == [(Endpoint.USER_JOINED, "k-1")]


async def test_an_event_without_a_key_gets_one(ask: Ask, engines: Engines) -> None:
    await ask("user-joined")
    assert [event.idempotency_key for event in engines.events] == ["ab" * 16]


@pytest.mark.parametrize(("length", "kept"), [(200, True), (201, False)])
async def test_a_key_that_is_too_long_is_replaced(ask: Ask, engines: Engines, length: int, kept: bool) -> None:
    await ask("user-joined", Idempotency_Key="k" * length)
    assert [event.idempotency_key for event in engines.events] == ["k" * length if kept else "ab" * 16]


async def test_the_log_names_users_by_digest_unless_identities_are_wanted(
    ask: Ask, questions: Questions, facts: list[Fact]
) -> None:
    await ask("validate-access")
    questions.settings = WebhookSettings(PREFIX, identities=True)
    await ask("validate-access")
    digest, name = (fact.subject for fact in facts if isinstance(fact, Resolved))
    assert name == "ann@example.org"
    assert len(digest) == 12
    assert "ann" not in digest


@pytest.mark.parametrize("sent", [{}, {"X_Webhook_Secret": "wrong"}])
async def test_a_listener_with_a_token_answers_401_without_it(
    ask: Ask, questions: Questions, sent: dict[str, str]
) -> None:
    questions.settings = WebhookSettings(PREFIX, tokens=("right", "old"))
    response = await ask("validate-access", **sent)
    assert response.status == 401
    assert "muc_webhook_secret" in (await response.json(content_type=None))["detail"]
    for token in ("right", "old"):
        assert (await ask("validate-access", X_Webhook_Secret=token)).status == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "says"),
    [
        ("validate-acess", JOIN, {}, 404, "the endpoints are /webhooks/jitsi/{room-created,"),
        ("validate-access", b"{", {}, 400, "not JSON"),
        ("validate-access", {"roomName": "a"}, {}, 400, "userJid is missing"),
        ("validate-access", JOIN, {"Content_Type": "text/plain"}, 415, "application/json"),
        ("validate-access", JOIN, {"Content_Encoding": "gzip"}, 415, "must not be compressed"),
        ("validate-access", b" " * 70_000, {}, 413, "longer than 65536 bytes"),
    ],
)
async def test_a_request_that_cannot_be_understood_gets_a_problem(
    ask: Ask, path: str, body: object, headers: dict[str, str], status: int, says: str
) -> None:
    response = await ask(path, body, **headers)
    assert response.status == status
    assert response.content_type == "application/problem+json"
    assert says in (await response.json(content_type=None))["detail"]


async def test_a_problem_names_the_field_that_is_wrong(ask: Ask) -> None:
    response = await ask("room-created", {"roomName": 7})
    assert (await response.json(content_type=None))["field"] == "roomName"


async def test_a_defect_keeps_a_user_out_with_a_definite_answer(ask: Ask, engines: Engines, facts: list[Fact]) -> None:
    engines.error = RuntimeError("a defect")
    response = await ask("validate-access")
    assert (response.status, (await response.json())["allowed"]) == (200, False)
    assert response.headers["Cache-Status"] == "prosody-sidecar; detail=defect"
    assert [fact.where for fact in facts if isinstance(fact, Crashed)] == ["resolver"]


async def test_a_defect_leaves_a_room_without_config_and_says_so(ask: Ask, engines: Engines) -> None:
    engines.error = RuntimeError("a defect")
    response = await ask("room-created")
    assert (response.status, (await response.json(content_type=None))["status"]) == (503, 503)
    assert response.content_type == "application/problem+json"
    assert "Retry-After" in response.headers


@pytest.mark.parametrize("why", [OutboxFull("9 events wait"), DiskError("the disk is full")])
async def test_an_event_that_is_not_safe_is_not_acknowledged(ask: Ask, engines: Engines, why: Exception) -> None:
    engines.error = why
    response = await ask("user-joined")
    assert response.status == 503
    assert str(why) in (await response.json(content_type=None))["detail"]
    assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize("endpoint", ["validate-access", "room-created"])
async def test_a_question_names_its_component(ask: Ask, hosts: Hosts, endpoint: str) -> None:
    await ask(endpoint, JOIN)
    assert hosts.document() == []
    await ask(endpoint, {**JOIN, "roomJid": "standup@conference.example.com"})
    (host,) = hosts.document()
    assert (host["host"], host["linked"], host["had_link"]) == ("conference.example.com", False, False)
