"""The demo service over HTTP: its webhooks, and what an operator asks and orders."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from typing import Final, assert_never

from aiohttp import web
from aiohttp.typedefs import Handler

from sidecar.demo_backend.requests import Wrong, changed_room, parse_fault, parse_object, parse_room_name
from sidecar.demo_backend.rooms import Json, room_as_json
from sidecar.demo_backend.service import DEFAULT_DELAY, ENDPOINTS, FAULTS, Fault, Service

PREFIX: Final = "/webhooks/jitsi"

GUIDE: Final[Json] = {
    "what": "The demo meeting service of prosody-sidecar. Everything is in memory and is lost at a restart.",
    "webhooks": [f"POST {PREFIX}/{endpoint}" for endpoint in ENDPOINTS],
    "rooms": {
        "cancelled-*": "nobody may join: Meeting has been cancelled",
        "lobby-*": "everybody waits in the lobby; alice@example.com is a moderator and does not",
        "private-*": "only invited users may join: alice@example.com, until you change it",
        "no-chat": "open, with chatEnabled false",
        "*": "everybody may join, with the default config",
    },
    "controls": {
        "GET /demo/state": "calls for each endpoint, events in the order of arrival, rooms, the current fault",
        "POST /demo/rooms/{room}": {
            "cancelled": "true or false",
            "reason": "the text for a refused user",
            "invited": "list of user ids, e-mail addresses or bare JIDs; null: everybody",
            "config": "settings that differ from the default",
            "decision": "more fields for validate-access, such as requireLobby, remainingMinutes, configuration",
            "people": "the same for single users: {name: {isModerator: true}}; names as in invited",
        },
        "DELETE /demo/rooms/{room}": "back to the behaviour of the room's name",
        "POST /demo/fault": {
            "fault": dict(FAULTS),
            "delay": f"seconds, for slow; default {DEFAULT_DELAY:g}",
            "endpoint": "one endpoint only; default all",
        },
    },
}

SERVICE: Final = web.AppKey("service", Service)


async def webhook(request: web.Request) -> web.StreamResponse:
    service, endpoint = request.app[SERVICE], request.match_info["endpoint"]
    if endpoint not in ENDPOINTS:
        return answer_json({"error": f"no such endpoint; the endpoints are {', '.join(ENDPOINTS)}"}, status=404)
    service.calls[endpoint] += 1
    if not service.knows(request.headers.get("X-Webhook-Secret")):
        service.wrong_secrets += 1
        return answer_json({"error": "X-Webhook-Secret is missing or wrong"}, status=401)
    body = parse_object(await request.read())
    name = parse_room_name(body)

    fault = service.fault
    if fault.endpoint not in (None, endpoint):
        fault = Fault()
    match fault.kind:
        case "500":
            return answer_json({"error": "the demo service has the fault 500"}, status=500)
        case "hang":
            await service.fault_over.wait()
        case "slow":
            await asyncio.sleep(fault.delay)
        case "none" | "reset" | "garbage":
            pass
        case _:
            assert_never(fault.kind)

    answer = service.answer(endpoint, name, request.headers.get("Idempotency-Key"), body)
    if fault.kind == "reset":
        reset(request)
    if fault.kind == "garbage":
        whole = json.dumps(answer).encode()
        return web.Response(body=whole[: len(whole) // 2], content_type="application/json")
    return answer_json(answer)


def reset(request: web.Request) -> None:
    """Ends the connection with an RST, like a machine that crashes."""
    transport = request.transport
    if transport is None:
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def guide(_request: web.Request) -> web.Response:
    return answer_json(GUIDE)


async def show_state(request: web.Request) -> web.Response:
    return answer_json(request.app[SERVICE].state())


async def change_room(request: web.Request) -> web.Response:
    service, name = request.app[SERVICE], request.match_info["room"]
    service.rooms[name] = changed_room(service.room(name), parse_object(await request.read()))
    return answer_json({"room": name, **room_as_json(service.rooms[name])})


async def forget_room(request: web.Request) -> web.Response:
    service, name = request.app[SERVICE], request.match_info["room"]
    service.rooms.pop(name, None)
    return answer_json({"room": name, **room_as_json(service.room(name))})


async def change_fault(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    service.switch(parse_fault(parse_object(await request.read())))
    return answer_json(service.state()["fault"])


def answer_json(body: Json, *, status: int = 200) -> web.Response:
    return web.json_response(
        body, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    )


@web.middleware
async def explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A request that is not valid gets a 400 that says why."""
    try:
        return await handler(request)
    except Wrong as wrong:
        return answer_json({"error": str(wrong)}, status=400)


def build_app(secret: str | None) -> web.Application:
    """The meeting service. With a secret, webhooks without it in `X-Webhook-Secret` get a 401."""
    app = web.Application(middlewares=[explain])
    app[SERVICE] = Service(secret)
    app.router.add_get("/", guide)
    app.router.add_get("/demo/state", show_state)
    app.router.add_post("/demo/rooms/{room}", change_room)
    app.router.add_delete("/demo/rooms/{room}", forget_room)
    app.router.add_post("/demo/fault", change_fault)
    app.router.add_post(PREFIX + "/{endpoint}", webhook)

    async def end_fault(app: web.Application) -> None:
        app[SERVICE].switch(Fault())

    app.on_shutdown.append(end_fault)
    return app


async def serve(host: str, port: int, secret: str | None, on_ready: Callable[[int], None] | None = None) -> None:
    """Serves until cancelled. When it listens, it calls `on_ready` with the port (useful if `port` is 0).

    Raises OSError if it cannot listen there.
    """
    runner = web.AppRunner(build_app(secret), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        if on_ready is not None:
            on_ready(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
