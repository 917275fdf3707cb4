"""The demo service while it runs: its rooms, what goes wrong, what it has been asked. All of it in memory."""

import asyncio
import hmac
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sidecar.demo_backend.rooms import Json, Room, config_of, decision_of, room_as_json, room_by_name

EVENTS: Final = ("user-joined", "user-left", "room-destroyed", "moderator-changed", "recording")
ENDPOINTS: Final = ("room-created", "validate-access", *EVENTS)

FaultKind = Literal["none", "500", "hang", "slow", "reset", "garbage"]

KEPT_EVENTS: Final = 10_000
DEFAULT_DELAY: Final = 2.0


@dataclass(frozen=True, slots=True)
class Fault:
    """The current fault. `delay`, in seconds, is for `slow`; `endpoint` None means all endpoints."""

    kind: FaultKind = "none"
    delay: float = DEFAULT_DELAY
    endpoint: str | None = None


FAULTS: Final[Mapping[FaultKind, str]] = {
    "none": "no fault",
    "500": "answers 500 with a JSON error",
    "hang": "accepts the request and sends no answer until the fault is changed",
    "slow": "answers correctly after `delay` seconds",
    "reset": "processes the request, then resets the connection instead of answering",
    "garbage": "processes the request, then answers 200 with half a JSON document",
}


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

    def answer(self, endpoint: str, name: str, key: str | None, body: Json) -> Json:
        match endpoint:
            case "room-created":
                return config_of(name, self.room(name))
            case "validate-access":
                return decision_of(name, self.room(name), body)
            case _:
                return self.receive(endpoint, name, key, body)

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
