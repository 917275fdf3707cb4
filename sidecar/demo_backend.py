"""A small meeting service for demonstrations: the backend of `make demo`, `make run` and the README.

    POST /webhooks/jitsi/<endpoint> -> count -> secret? -> body? -> fault? -> room rules -> answer
    POST /demo/...                  -> changes a room or a fault while it runs
    GET  /                          -> describes how to use it

It has the same HTTP interface as a real meeting service and keeps everything in memory. The name of a room decides
how it behaves, so that the first `curl` shows something: `cancelled-*`, `private-*`, `no-chat`; all others are open.
A setting made with `/demo/rooms/<room>` has priority over the name.
"""

import asyncio
import hmac
import json
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, assert_never

from aiohttp import web
from aiohttp.typedefs import Handler

PREFIX: Final = "/webhooks/jitsi"
EVENTS: Final = ("user-joined", "user-left", "room-destroyed", "moderator-changed", "recording")
ENDPOINTS: Final = ("room-created", "validate-access", *EVENTS)

FaultKind = Literal["none", "500", "hang", "slow", "reset", "garbage"]
Json = dict[str, Any]

KEPT_EVENTS: Final = 10_000
DEFAULT_DELAY: Final = 2.0

DEFAULT_CONFIG: Final[Mapping[str, Any]] = {
    # Settings that Prosody applies to the room
    "moderators": [],
    "maxParticipants": 50,
    "membersOnly": False,
    "moderated": False,
    "persistent": False,
    "hidden": False,
    "publicRoom": True,
    "whois": "anyone",
    "allowInvites": True,
    "changeSubject": False,
    "historyLength": 20,
    "isPublic": True,
    "maxDurationMinutes": 60,
    # Settings that the browser gets
    "lobbyEnabled": False,
    "chatEnabled": True,
    "whiteboardEnabled": True,
    "screenShareEnabled": True,
    "recordingEnabled": True,
    "muteOnJoin": False,
    "videoOffOnJoin": False,
    "autoRecord": False,
    "reactionsEnabled": True,
    "raiseHandEnabled": True,
    "privateMessagesEnabled": True,
    "participantNameEditingEnabled": True,
    "followMeEnabled": True,
    "tileViewEnabled": True,
    "filmstripEnabled": True,
    "liveStreamingEnabled": False,
    "virtualBackgroundsEnabled": True,
    "noiseSuppressionEnabled": True,
    "e2eeEnabled": False,
    "hd1080pEnabled": False,
    "audioQuality": "standard",
    "pollsEnabled": True,
    "breakoutRoomsEnabled": True,
    "speakerStatsEnabled": True,
    "kickParticipantsEnabled": True,
    "muteAllEnabled": True,
    "avModerationEnabled": True,
    "securityEnabled": True,
    "closedCaptionsEnabled": False,
    "sharedDocumentEnabled": False,
    "calendarEnabled": False,
    "toolbarButtons": ["microphone", "camera", "chat", "desktop", "raisehand", "tileview", "hangup"],
}


@dataclass(frozen=True, slots=True)
class Room:
    """What the meeting service knows about one room. `invited` is None if everybody may join."""

    cancelled: bool = False
    reason: str = "Meeting has been cancelled"
    invited: frozenset[str] | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """The current fault. `delay`, in seconds, is for `slow`; `endpoint` None means all endpoints."""

    kind: FaultKind = "none"
    delay: float = DEFAULT_DELAY
    endpoint: str | None = None


ROOMS_BY_NAME: Final[tuple[tuple[str, Room], ...]] = (
    ("cancelled-*", Room(cancelled=True)),
    ("private-*", Room(invited=frozenset({"alice@example.com"}))),
    ("no-chat", Room(config={"chatEnabled": False})),
    ("*", Room()),
)

FAULTS: Final[Mapping[FaultKind, str]] = {
    "none": "no fault",
    "500": "answers 500 with a JSON error",
    "hang": "accepts the request and sends no answer until the fault is changed",
    "slow": "answers correctly after `delay` seconds",
    "reset": "processes the request, then resets the connection instead of answering",
    "garbage": "processes the request, then answers 200 with half a JSON document",
}

GUIDE: Final[Json] = {
    "what": "The demo meeting service of prosody-sidecar. Everything is in memory and is lost at a restart.",
    "webhooks": [f"POST {PREFIX}/{endpoint}" for endpoint in ENDPOINTS],
    "rooms": {
        "cancelled-*": "nobody may join: Meeting has been cancelled",
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
        },
        "DELETE /demo/rooms/{room}": "back to the behaviour of the room's name",
        "POST /demo/fault": {
            "fault": dict(FAULTS),
            "delay": f"seconds, for slow; default {DEFAULT_DELAY:g}",
            "endpoint": "one endpoint only; default all",
        },
    },
}


class Wrong(Exception):
    """A request that is not valid; the message says which field and why."""


class Service:
    """What changes while it runs: rooms, the fault, counts and events."""

    def __init__(self, secret: str | None) -> None:
        self.secret = secret
        self.rooms: dict[str, Room] = {}
        self.fault = Fault()
        self.fault_over = asyncio.Event()
        self.calls: Counter[str] = Counter()
        self.wrong_secrets = 0
        self.events_received = 0
        self.events: deque[Json] = deque(maxlen=KEPT_EVENTS)
        self.keys_seen: set[str] = set()

    def room(self, name: str) -> Room:
        return self.rooms.get(name) or room_by_name(name)

    def switch(self, fault: Fault) -> None:
        """Change the fault; requests that hang because of the earlier fault continue."""
        self.fault = fault
        self.fault_over.set()
        self.fault_over = asyncio.Event()

    def knows(self, secret: str | None) -> bool:
        if self.secret is None:
            return True
        return hmac.compare_digest((secret or "").encode(), self.secret.encode())

    def receive(self, endpoint: str, room: str, key: str | None, body: Json) -> Json:
        duplicate = key is not None and key in self.keys_seen
        if key is not None:
            self.keys_seen.add(key)
        self.events_received += 1
        self.events.append(
            {"endpoint": endpoint, "room": room, "idempotencyKey": key, "duplicate": duplicate, "body": body}
        )
        return {"received": True, "duplicate": duplicate}

    def state(self) -> Json:
        return {
            "fault": {"fault": self.fault.kind, "delay": self.fault.delay, "endpoint": self.fault.endpoint},
            "secretRequired": self.secret is not None,
            "wrongSecrets": self.wrong_secrets,
            "calls": {endpoint: self.calls[endpoint] for endpoint in ENDPOINTS},
            "rooms": {name: room_as_json(room) for name, room in sorted(self.rooms.items())},
            "eventsReceived": self.events_received,
            "events": list(self.events),
        }


SERVICE: Final = web.AppKey("service", Service)


def room_by_name(name: str) -> Room:
    return next(room for pattern, room in ROOMS_BY_NAME if fnmatchcase(name, pattern))


def title_of(name: str, room: Room) -> str:
    title = room.config.get("meetingTitle")
    return title if isinstance(title, str) else name.replace("-", " ").capitalize()


def config_of(name: str, room: Room) -> Json:
    """The answer to `room-created`: the default settings, overridden by those of the room."""
    about = {
        "meetingId": f"demo-{name}",
        "meetingTitle": title_of(name, room),
        "meetingDescription": "A meeting of the demo service",
    }
    return {**DEFAULT_CONFIG, **about, **room.config}


def decision_of(name: str, room: Room, body: Json) -> Json:
    """The answer to `validate-access`."""
    reason = None
    if room.cancelled:
        reason = room.reason
    elif room.invited is not None and not (names_of(body) & room.invited):
        reason = "This meeting is private and you are not invited"
    return {"allowed": reason is None, "reason": reason, "meetingTitle": title_of(name, room)}


def names_of(body: Json) -> set[str]:
    """Every name with which a user may be invited."""
    jid = body.get("userJid")
    bare = jid.split("/", 1)[0] if isinstance(jid, str) else None
    return {name for name in (body.get("userId"), body.get("userEmail"), bare) if isinstance(name, str)}


def parse_object(raw: bytes) -> Json:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise Wrong(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Wrong("the body must be a JSON object")
    return body


def parse_room_name(body: Json) -> str:
    name = body.get("roomName")
    if not isinstance(name, str) or not name:
        raise Wrong("roomName: a non-empty string is needed")
    return name


def changed_room(room: Room, change: Json) -> Room:
    """The room with the changes that an operator sent. Raises Wrong, which names the field."""
    for key, value in change.items():
        match key:
            case "cancelled" if isinstance(value, bool):
                room = replace(room, cancelled=value)
            case "reason" if isinstance(value, str):
                room = replace(room, reason=value)
            case "invited" if value is None:
                room = replace(room, invited=None)
            case "invited" if isinstance(value, list) and all(isinstance(name, str) for name in value):
                room = replace(room, invited=frozenset(value))
            case "config" if isinstance(value, dict):
                room = replace(room, config={**room.config, **value})
            case "cancelled" | "reason" | "invited" | "config":
                raise Wrong(f"{key}: the type is wrong, see GET /")
            case _:
                raise Wrong(f"{key}: unknown; the fields are cancelled, reason, invited, config")
    return room


def parse_fault(body: Json) -> Fault:
    unknown = sorted(set(body) - {"fault", "delay", "endpoint"})
    if unknown:
        raise Wrong(f"{unknown[0]}: unknown; the fields are fault, delay, endpoint")
    kind = next((kind for kind in FAULTS if kind == body.get("fault")), None)
    delay, endpoint = body.get("delay", DEFAULT_DELAY), body.get("endpoint")
    if kind is None:
        raise Wrong(f"fault: one of {', '.join(FAULTS)} is needed")
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay <= 3600:
        raise Wrong("delay: seconds from 0 to 3600 are needed")
    if endpoint is not None and endpoint not in ENDPOINTS:
        raise Wrong(f"endpoint: one of {', '.join(ENDPOINTS)} is needed, or nothing for all")
    return Fault(kind, float(delay), endpoint)


def room_as_json(room: Room) -> Json:
    return {
        "cancelled": room.cancelled,
        "reason": room.reason,
        "invited": None if room.invited is None else sorted(room.invited),
        "config": dict(room.config),
    }


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

    answer = work(service, endpoint, name, request.headers.get("Idempotency-Key"), body)
    if fault.kind == "reset":
        reset(request)
    if fault.kind == "garbage":
        whole = json.dumps(answer).encode()
        return web.Response(body=whole[: len(whole) // 2], content_type="application/json")
    return answer_json(answer)


def work(service: Service, endpoint: str, name: str, key: str | None, body: Json) -> Json:
    match endpoint:
        case "room-created":
            return config_of(name, service.room(name))
        case "validate-access":
            return decision_of(name, service.room(name), body)
        case _:
            return service.receive(endpoint, name, key, body)


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
