"""The demo meeting service, over real sockets: what it answers, what one can change, how it fails."""

import asyncio
import contextlib
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp.plugin import AiohttpClient

from sidecar.demo_backend.server import build_app, serve
from sidecar.demo_backend.service import ENDPOINTS

SECRET = "a-secret-of-the-tests"


Client = TestClient[web.Request, web.Application]


class Backend:
    """A client of one running demo service."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, dict[str, Any]]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(path, data=json.dumps(body), headers=sent) as response:
            return response.status, await response.json()

    async def webhook(self, endpoint: str, room: str, **fields: object) -> dict[str, Any]:
        status, answer = await self.post(f"/webhooks/jitsi/{endpoint}", {"roomName": room, **fields})
        assert status == 200
        return answer

    async def fault(self, kind: str, **fields: object) -> None:
        status, _ = await self.post("/demo/fault", {"fault": kind, **fields})
        assert status == 200

    async def state(self) -> dict[str, Any]:
        async with self.client.get("/demo/state") as response:
            body: dict[str, Any] = await response.json()
            return body


@pytest.fixture
async def backend(aiohttp_client: AiohttpClient) -> Backend:
    return Backend(await aiohttp_client(build_app(None)))


async def test_a_decision_says_more_about_a_room_and_about_a_person(backend: Backend) -> None:
    await backend.post("/demo/rooms/board", {"decision": {"remainingMinutes": 5, "requireLobby": True}})
    await backend.post("/demo/rooms/board", {"people": {"ann@example.com": {"requireLobby": False}}})
    ann = await backend.webhook("validate-access", "board", userJid="ann@example.com/x")
    bob = await backend.webhook("validate-access", "board", userJid="bob@example.com/x")
    assert (ann["requireLobby"], ann["remainingMinutes"]) == (False, 5)
    assert (bob["requireLobby"], bob["remainingMinutes"]) == (True, 5)


async def test_a_lobby_has_a_moderator(backend: Backend) -> None:
    alice = await backend.webhook("validate-access", "lobby-board", userJid="alice@example.com/x")
    bob = await backend.webhook("validate-access", "lobby-board", userJid="bob@example.com/x")
    assert (alice["isModerator"], alice["requireLobby"], bob["requireLobby"]) == (True, False, True)


async def test_an_unknown_room_is_open_and_has_all_settings(backend: Backend) -> None:
    config = await backend.webhook("room-created", "team-standup")
    assert len(config) >= 40
    assert config["chatEnabled"] is True
    assert config["meetingTitle"] == "Team standup"
    decision = await backend.webhook("validate-access", "team-standup", userJid="bob@example.com/x")
    assert decision == {"allowed": True, "reason": None, "meetingTitle": "Team standup"}


async def test_a_cancelled_room_refuses_everybody_and_still_has_a_config(backend: Backend) -> None:
    decision = await backend.webhook("validate-access", "cancelled-monday", userJid="bob@example.com")
    assert decision["allowed"] is False
    assert decision["reason"] == "Meeting has been cancelled"
    assert (await backend.webhook("room-created", "cancelled-monday"))["meetingTitle"] == "Cancelled monday"


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ({"userJid": "alice@example.com/phone"}, True),
        ({"userJid": "x7f3@guest.example.com/a", "userEmail": "alice@example.com"}, True),
        ({"userJid": "x7f3@guest.example.com/a", "userId": "alice@example.com"}, True),
        ({"userJid": "bob@example.com/phone", "userName": "alice@example.com"}, False),
        ({}, False),
    ],
)
async def test_a_private_room_admits_those_who_are_invited(
    backend: Backend, who: dict[str, str], allowed: bool
) -> None:
    assert (await backend.webhook("validate-access", "private-board", **who))["allowed"] is allowed


async def test_the_room_no_chat_has_chat_off(backend: Backend) -> None:
    assert (await backend.webhook("room-created", "no-chat"))["chatEnabled"] is False


async def test_an_operator_cancels_a_room_and_takes_it_back(backend: Backend) -> None:
    await backend.post(
        "/demo/rooms/weekly",
        {"cancelled": True, "reason": "Moved to Friday", "config": {"chatEnabled": False}},
    )
    decision = await backend.webhook("validate-access", "weekly", userJid="bob@example.com")
    assert (decision["allowed"], decision["reason"]) == (False, "Moved to Friday")
    assert (await backend.webhook("room-created", "weekly"))["chatEnabled"] is False
    async with backend.client.delete("/demo/rooms/weekly") as response:
        assert response.status == 200
    assert (await backend.webhook("validate-access", "weekly", userJid="bob@example.com"))["allowed"] is True


async def test_an_operator_invites(backend: Backend) -> None:
    await backend.post("/demo/rooms/board", {"invited": ["bob@example.com"]})
    assert (await backend.webhook("validate-access", "board", userJid="bob@example.com"))["allowed"] is True
    assert (await backend.webhook("validate-access", "board", userJid="eve@example.com"))["allowed"] is False
    await backend.post("/demo/rooms/board", {"invited": None})
    assert (await backend.webhook("validate-access", "board", userJid="eve@example.com"))["allowed"] is True


async def test_events_are_kept_in_order_and_a_repeated_key_shows(backend: Backend) -> None:
    path = "/webhooks/jitsi/user-joined"
    await backend.post(path, {"roomName": "a", "timestamp": 1}, Idempotency_Key="k1")
    await backend.post(path, {"roomName": "a", "timestamp": 1}, Idempotency_Key="k1")
    await backend.webhook("user-left", "b")
    seen = (await backend.state())["events"]
    assert [(e["endpoint"], e["room"], e["idempotencyKey"], e["duplicate"]) for e in seen] == [
        ("user-joined", "a", "k1", False),
        ("user-joined", "a", "k1", True),
        ("user-left", "b", None, False),
    ]
    assert seen[0]["body"] == {"roomName": "a", "timestamp": 1}


async def test_calls_are_counted_by_endpoint(backend: Backend) -> None:
    for endpoint in ENDPOINTS:
        await backend.webhook(endpoint, "a")
    assert (await backend.state())["calls"] == dict.fromkeys(ENDPOINTS, 1)


async def test_a_wrong_secret_gets_401_and_is_not_let_near_the_rooms(aiohttp_client: AiohttpClient) -> None:
    backend = Backend(await aiohttp_client(build_app(SECRET)))
    body = {"roomName": "a", "userJid": "bob@example.com"}
    path = "/webhooks/jitsi/validate-access"
    assert (await backend.post(path, body))[0] == 401
    assert (await backend.post(path, body, X_Webhook_Secret="wrong"))[0] == 401
    status, answer = await backend.post(path, body, X_Webhook_Secret=SECRET)
    assert (status, answer["allowed"]) == (200, True)
    state = await backend.state()
    assert state["wrongSecrets"] == 2
    assert SECRET not in json.dumps(state)


async def test_the_root_explains_all_of_it(backend: Backend) -> None:
    async with backend.client.get("/") as response:
        guide = await response.json()
    assert len(guide["webhooks"]) == len(ENDPOINTS)
    assert set(guide["controls"]["POST /demo/fault"]["fault"]) == {
        "none",
        "500",
        "hang",
        "slow",
        "reset",
        "garbage",
    }


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/webhooks/jitsi/room-created", [], "JSON object"),
        ("/webhooks/jitsi/room-created", {}, "roomName"),
        ("/webhooks/jitsi/room-created", {"roomName": 7}, "roomName"),
        ("/demo/fault", {"fault": "fire"}, "fault"),
        ("/demo/fault", {"fault": "slow", "delay": "long"}, "delay"),
        ("/demo/fault", {"fault": "slow", "delay": True}, "delay"),
        ("/demo/fault", {"fault": "500", "endpoint": "nowhere"}, "endpoint"),
        ("/demo/fault", {"fault": "500", "until": 3}, "until"),
        ("/demo/rooms/a", {"canceled": True}, "canceled"),
        ("/demo/rooms/a", {"cancelled": "yes"}, "cancelled"),
        ("/demo/rooms/a", {"invited": "bob"}, "invited"),
    ],
)
async def test_what_cannot_be_understood_gets_a_400_that_names_the_field(
    backend: Backend, path: str, body: object, says: str
) -> None:
    status, answer = await backend.post(path, body)
    assert status == 400
    assert says in answer["error"]


async def test_a_body_that_is_not_json_gets_a_400(backend: Backend) -> None:
    async with backend.client.post("/demo/fault", data=b"\xff{") as response:
        assert response.status == 400


async def test_fault_500_fails_one_endpoint_where_one_is_named(backend: Backend) -> None:
    await backend.fault("500", endpoint="validate-access")
    assert (await backend.post("/webhooks/jitsi/validate-access", {"roomName": "a"}))[0] == 500
    assert (await backend.post("/webhooks/jitsi/room-created", {"roomName": "a"}))[0] == 200
    await backend.fault("none")
    assert (await backend.post("/webhooks/jitsi/validate-access", {"roomName": "a"}))[0] == 200


async def test_fault_hang_says_nothing_until_it_is_over(backend: Backend) -> None:
    await backend.fault("hang")
    hanging = asyncio.create_task(backend.webhook("validate-access", "a"))
    while (await backend.state())["calls"]["validate-access"] == 0:
        await asyncio.sleep(0)
    assert not hanging.done()
    await backend.fault("none")
    assert (await hanging)["allowed"] is True


async def test_fault_slow_answers_rightly_but_late(backend: Backend) -> None:
    await backend.fault("slow", delay=0.05)
    clock = asyncio.get_running_loop().time
    begun = clock()
    assert (await backend.webhook("validate-access", "cancelled-x"))["allowed"] is False
    assert clock() - begun >= 0.05


async def test_fault_reset_does_the_work_and_resets_the_connection(backend: Backend) -> None:
    await backend.fault("reset")
    with pytest.raises(aiohttp.ClientOSError):
        await backend.webhook("user-joined", "a")
    await backend.fault("none")
    assert (await backend.state())["eventsReceived"] == 1


async def test_fault_garbage_is_a_200_that_no_one_can_parse(backend: Backend) -> None:
    await backend.fault("garbage")
    body = json.dumps({"roomName": "a"})
    async with backend.client.post("/webhooks/jitsi/room-created", data=body) as response:
        assert response.status == 200
        raw = await response.read()
    with pytest.raises(ValueError, match="char"):
        json.loads(raw)


async def test_it_stops_at_once_also_with_a_request_that_hangs() -> None:
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve("127.0.0.1", 0, None, port.set_result))
    clock = asyncio.get_running_loop().time
    async with aiohttp.ClientSession(f"http://127.0.0.1:{await port}") as session:
        await session.post("/demo/fault", json={"fault": "hang"})
        hanging = asyncio.create_task(session.post("/webhooks/jitsi/validate-access", json={"roomName": "a"}))
        while (await (await session.get("/demo/state")).json())["calls"]["validate-access"] == 0:
            await asyncio.sleep(0)
        begun = clock()
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server
        with contextlib.suppress(aiohttp.ClientError):
            await hanging
    assert clock() - begun < 1.0
