"""The control listener: who may give orders, what each order is answered, and what a malformed one is told."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from sidecar.clock import SystemClock
from sidecar.core.orders import Result, State, Verb, read_order
from sidecar.errors import DiskError, OrderRefused
from sidecar.facts import Crashed, Fact, Intruder
from sidecar.web import keys as keys_of_web
from sidecar.web.control import Control
from sidecar.web.keys import ControlKey, KeyHolders

Client = TestClient[web.Request, web.Application]
NEW, OLD = "new-key-of-sixteen", "whsec_" + base64.b64encode(b"old-key").decode()
KEYS = [ControlKey(NEW, NEW.encode()), ControlKey(OLD, b"old-key")]
KICK = {"room": "standup", "user": "ann@example.org"}


class Orders:
    """The engine, which says what the test wants."""

    def __init__(self) -> None:
        self.result: Result | Exception = Result(State.DONE, {"kicked": 1})
        self.taken: list[tuple[Verb, str | None, str]] = []

    async def take(self, verb: Verb, body: bytes, key: str | None, sender: str) -> Result:
        read_order(verb, body, "o-1", 1.0)
        self.taken.append((verb, key, sender))
        return self._said()

    async def who(self, room: bytes) -> Result:
        read_order(Verb.WHO, room, "o-1", 1.0)
        return self._said()

    def _said(self) -> Result:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Setup:
    def __init__(self) -> None:
        self.orders, self.facts = Orders(), list[Fact]()
        self.holders = KeyHolders(lambda: KEYS, SystemClock(), self.facts.append)
        self.app = Control(self.orders, self.facts.append).app(self.holders.identify)


@pytest.fixture
def setup() -> Setup:
    return Setup()


@pytest.fixture
async def client(setup: Setup, aiohttp_client: AiohttpClient) -> Client:
    return await aiohttp_client(setup.app)


async def orders(
    client: Client, verb: str = "kick", body: Any = KICK, token: str | None = NEW, **headers: str
) -> tuple[int, Any]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.post(
        f"/control/v1/{verb}", data=data, headers={"Content-Type": "application/json", **sent}
    ) as response:
        return response.status, await response.json(content_type=None)


def signed(body: bytes, key: bytes = b"old-key", *, at: float | None = None, message: str = "msg_1") -> dict[str, str]:
    when = str(int(time.time() if at is None else at))
    digest = hmac.digest(key, f"{message}.{when}.".encode() + body, "sha256")
    return {
        "webhook_id": message,
        "webhook_timestamp": when,
        "webhook_signature": "v1,bm9uc2Vuc2U= v1," + base64.b64encode(digest).decode(),
    }


@pytest.mark.parametrize(
    ("result", "status", "body"),
    [
        (Result(State.DONE, {"kicked": 1}), 200, {"kicked": 1}),
        (Result(State.WAITING), 202, {"pending": True}),
    ],
)
async def test_an_order_is_answered_with_what_became_of_it(
    client: Client, setup: Setup, result: Result, status: int, body: object
) -> None:
    setup.orders.result = result
    assert await orders(client) == (status, body)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (Result(State.ABSENT), 404),
        (Result(State.EXPIRED), 410),
        (Result(State.FAILED, error="no"), 502),
        (OrderRefused(422, "another order", "Idempotency-Key"), 422),
        (DiskError("full"), 503),
        (LookupError("a defect"), 500),
    ],
)
async def test_what_cannot_be_done_is_a_problem(
    client: Client, setup: Setup, result: Result | Exception, status: int
) -> None:
    setup.orders.result = result
    answered, problem = await orders(client)
    assert (answered, problem["status"], bool(problem["detail"])) == (status, status, True)
    assert [type(fact) for fact in setup.facts] == ([Crashed] if status == 500 else [])


async def test_who_is_in_a_room_is_told_to_key_holders_alone(client: Client, setup: Setup) -> None:
    setup.orders.result = Result(State.DONE, {"occupants": []})
    path = "/control/v1/rooms/standup%40conference.example.org"
    async with client.get(path, headers={"Authorization": f"Bearer {OLD}"}) as response:
        assert await response.json() == {"occupants": []}
    async with client.get(path) as response:
        assert response.status == 401


@pytest.mark.parametrize("token", [NEW, OLD])
async def test_the_new_key_and_the_old_one_count_and_the_log_says_which(
    client: Client, setup: Setup, token: str
) -> None:
    assert (await orders(client, token=token, Idempotency_Key="k"))[0] == 200
    number = 1 if token == NEW else 2
    assert setup.orders.taken == [(Verb.KICK, "k", f"key {number} from 127.0.0.1")]


@pytest.mark.parametrize("key", [b"old-key", NEW.encode()])
async def test_a_signature_of_standard_webhooks_counts_and_its_id_is_the_idempotency_key(
    client: Client, setup: Setup, key: bytes
) -> None:
    body = json.dumps(KICK).encode()
    headers = signed(body, key)
    assert (await orders(client, body=body, token=None, **headers, Idempotency_Key="other"))[0] == 200
    assert [each[1] for each in setup.orders.taken] == ["msg_1"]


@pytest.mark.parametrize("seconds", [-301, 302])
async def test_a_signature_from_outside_the_window_does_not_count(client: Client, seconds: int) -> None:
    body = json.dumps(KICK).encode()
    assert (await orders(client, body=body, token=None, **signed(body, at=time.time() + seconds)))[0] == 401


async def test_a_signature_of_another_body_or_key_does_not_count(client: Client, setup: Setup) -> None:
    body = json.dumps(KICK).encode()
    for headers in (signed(b"{}"), signed(body, b"guess"), {**signed(body), "webhook_id": "msg_2"}):
        assert (await orders(client, body=body, token=None, **headers))[0] == 401
    assert setup.orders.taken == []


@pytest.mark.parametrize("token", [None, "wrong", "", NEW[:-1], NEW + "x", "ключ"])
async def test_a_wrong_key_is_refused_slowly(client: Client, setup: Setup, token: str | None) -> None:
    begun = time.monotonic()
    status, problem = await orders(client, token=token)
    assert (status, time.monotonic() - begun >= keys_of_web.DELAY) == (401, True)
    assert "control.token_file" in problem["detail"]
    assert setup.orders.taken == []
    assert [type(fact) for fact in setup.facts] == [Intruder]


async def test_only_so_many_wrong_keys_wait_and_a_right_one_does_not_wait_for_them(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_of_web, "MOST_DELAYED", 3)
    wrong = [asyncio.ensure_future(orders(client, token="wrong")) for _ in range(5)]
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    assert (await orders(client))[0] == 200
    assert time.monotonic() - begun < keys_of_web.DELAY / 2
    assert sorted(status for status, _ in await asyncio.gather(*wrong)) == [401, 401, 401, 429, 429]


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"{", None), (b"[]", None), ({"room": 7, "user": "a"}, "room"), ({**KICK, "sudo": True}, "sudo"), ({}, "room")],
)
async def test_a_malformed_order_is_told_which_field(client: Client, body: Any, field: str | None) -> None:
    status, problem = await orders(client, body=body)
    assert (status, problem.get("field")) == (400, field)


async def test_an_idempotency_key_must_be_one(client: Client) -> None:
    status, problem = await orders(client, Idempotency_Key="x" * 201)
    assert (status, problem["field"]) == (400, "Idempotency-Key")


async def test_only_what_is_an_order_has_a_path(client: Client) -> None:
    assert (await orders(client, "who"))[0] == 404
    assert (await orders(client, "restart"))[0] == 404
    async with client.get("/control/v1/kick") as response:
        assert (response.status, (await response.json(content_type=None))["status"]) == (405, 405)


async def test_an_order_of_a_megabyte_is_refused(client: Client) -> None:
    assert (await orders(client, body=b" " * 1_000_000))[0] == 413
