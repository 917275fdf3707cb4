"""What a request of the demo service says: a question, an event, or what an operator wants to be otherwise."""

import json
from dataclasses import replace

from sidecar.demo_backend.rooms import Json, Room
from sidecar.demo_backend.service import DEFAULT_DELAY, ENDPOINTS, FAULTS, Fault

FIELDS = ("cancelled", "reason", "invited", "config", "decision", "people")


class Wrong(Exception):
    """A request that is not valid; the message says which field and why."""


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
            case "decision" if isinstance(value, dict):
                room = replace(room, decision=value)
            case "people" if isinstance(value, dict) and all(isinstance(each, dict) for each in value.values()):
                room = replace(room, people=value)
            case _ if key in FIELDS:
                raise Wrong(f"{key}: the type is wrong, see GET /")
            case _:
                raise Wrong(f"{key}: unknown; the fields are {', '.join(FIELDS)}")
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
