"""Orders of the meeting service: bytes -> Order, the outcome that the module reports -> Result, what is sent when.

An order waits until the module has carried it out, or until it has expired. The orders of one room are sent one after
the other, each when the one before it has ended (`Waiting`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sidecar.core.model import GUEST, Endpoint
from sidecar.core.selection import Change, Selector
from sidecar.core.wire import NAME_LIMIT, Malformed, read_object, text_of


class Verb(StrEnum):
    """What can be ordered, and nothing else can."""

    FORGET = "forget"
    KICK = "kick"
    END = "end"
    REFRESH = "refresh"
    WHO = "who"


class Mode(StrEnum):
    """What `forget` does with remembered answers."""

    SUSPECT = "suspect"
    DROP = "drop"


class State(StrEnum):
    """What has become of an order."""

    WAITING = "waiting"
    DONE = "done"
    ABSENT = "absent"
    """There is no such room, or nobody such in it, or the room was made after the order."""
    FAILED = "failed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `issued` is wall time (Unix seconds): a room that was made later is not meant."""

    id: str
    verb: Verb
    issued: float
    room: str | None = None
    """The room's name: the first part of its JID. Only `forget` may lack it."""
    room_jid: str | None = None
    """The room's JID, if the order names the room by it."""
    user: str | None = None
    nick: str | None = None
    reason: str | None = None
    meeting_id: str | None = None
    """As JSON text."""
    mode: Mode = Mode.SUSPECT

    def document(self) -> dict[str, Any]:
        """What the module gets."""
        document = {
            "verb": self.verb,
            "room": self.room,
            "roomJid": self.room_jid,
            "user": self.user,
            "nick": self.nick,
            "reason": self.reason,
            "issued": self.issued,
        }
        return {name: value for name, value in document.items() if value is not None}

    @property
    def host(self) -> str | None:
        """The domain of the room, if the order says it."""
        return None if self.room_jid is None else self.room_jid.partition("@")[2]


@dataclass(frozen=True, slots=True)
class Result:
    """What has become of an order. `fields`: what the sender is told, such as {"kicked": 1}."""

    state: State
    fields: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    users: tuple[str, ...] = ()
    """Who was put out, as far as the module knows them: user ids, e-mails, bare JIDs."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An order as it is on disk. `key`: the sender's idempotency key."""

    order: Order
    key: str | None
    fingerprint: str
    result: Result


WAITING = Result(State.WAITING)
EXPIRED = Result(State.EXPIRED)

_TEXT_LIMIT = 1023
"""Bytes of a reason, a nick or a user."""

_FIELDS: Mapping[Verb, tuple[str, ...]] = {
    Verb.FORGET: ("room", "user", "meetingId", "mode"),
    Verb.KICK: ("room", "user", "nick", "reason"),
    Verb.END: ("room", "reason"),
    Verb.REFRESH: ("room",),
    Verb.WHO: ("room",),
}


def read_order(verb: Verb, body: bytes, order_id: str, issued: float) -> Order:
    """The order in the body of a request. Raises Malformed, which names the field."""
    document = read_object(body)
    known = _FIELDS[verb]
    for name in document:
        if name not in known:
            raise Malformed(f"{name[:60]} is unknown here; {verb} takes {', '.join(known)}", name[:60])
    texts = {name: _text(document, name) for name in ("user", "nick", "reason")}
    room, room_jid = _room(document)
    meeting_id = text_of(document.get("meetingId"))
    if verb is Verb.FORGET:
        if room is None and texts["user"] is None and meeting_id is None:
            raise Malformed("name a room, a user or a meetingId", "room")
    elif room is None:
        raise Malformed("room is missing", "room")
    if verb is Verb.KICK:
        _check_who(texts["user"], texts["nick"])
    mode = document.get("mode", Mode.SUSPECT)
    if mode not in tuple(Mode):
        raise Malformed("mode must be suspect or drop", "mode")
    return Order(order_id, verb, issued, room, room_jid, **texts, meeting_id=meeting_id, mode=Mode(mode))


def _check_who(user: str | None, nick: str | None) -> None:
    if (user is None) == (nick is None):
        raise Malformed("name either a user or a nick", "user")
    if user in (GUEST, TOKEN):
        raise Malformed(f"{user} is no one person; name the nick", "user")


def _room(document: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The room's name and, if it is named by it, its JID; both in lower case, as in a JID."""
    text = _text(document, "room")
    if text is None:
        return None, None
    lowered = text.lower()
    name, at, host = lowered.partition("@")
    if not name or (at and (not host or "@" in host or "/" in host)):
        raise Malformed("room must be a room's name, or its JID: name@conference.example.com", "room")
    return name, lowered if at else None


def _text(document: Mapping[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise Malformed(f"{name} must be a string", name)
    limit = NAME_LIMIT if name == "room" else _TEXT_LIMIT
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Malformed(f"{name} holds half a surrogate pair, which is no character", name) from None
    if not value.strip() or size > limit:
        raise Malformed(f"{name} must have 1 to {limit} bytes, and not only spaces", name)
    return value


def fingerprint(order: Order) -> str:
    """The same for two orders that say the same, whenever they come."""
    said = [order.verb, order.room, order.room_jid, order.user, order.nick, order.reason, order.meeting_id, order.mode]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


_TOLD: Mapping[Verb, tuple[str, ...]] = {
    Verb.FORGET: ("forgotten",),
    Verb.KICK: ("kicked",),
    Verb.END: ("ended",),
    Verb.REFRESH: ("refreshed", "changed"),
    Verb.WHO: ("occupants",),
}
"""The fields of an outcome that the sender is told."""

_IF_DONE: Mapping[Verb, dict[str, Any]] = {
    Verb.KICK: {"kicked": 1},
    Verb.END: {"ended": True},
    Verb.REFRESH: {"refreshed": True},
    Verb.WHO: {"occupants": []},
}


def read_outcome(verb: Verb, outcome: Any) -> Result:
    """What the module reports about an order. Whatever cannot be understood is a failure."""
    if not isinstance(outcome, dict):
        return Result(State.FAILED, error="the module's outcome is not a JSON object")
    status, error = outcome.get("status"), outcome.get("error")
    said = error[:_TEXT_LIMIT] if isinstance(error, str) else ""
    match status:
        case "done":
            told = {name: outcome[name] for name in _TOLD[verb] if outcome.get(name) is not None}
            return Result(State.DONE, {**_IF_DONE.get(verb, {}), **told}, users=_users(outcome.get("users")))
        case "absent":
            return Result(State.ABSENT, error=said)
        case "failed":
            return Result(State.FAILED, error=said or "the module gives no reason")
        case _:
            return Result(State.FAILED, error="the module's outcome has no status that is known")


def _users(named: Any) -> tuple[str, ...]:
    return tuple(each for each in named if isinstance(each, str) and each) if isinstance(named, list) else ()


TOKEN = "token"
"""The subject of users of whom only a token is known."""


def taken_away(order: Order) -> list[tuple[Selector, Change]]:
    """What is remembered no longer, or is suspect, before the order is sent.

    Who is kicked, and who was in a meeting that ends, is not let in from memory again. Guests share one answer, and of
    some users only the token is known: who of them was kicked cannot be told, so their answers become suspect, as do
    all of the room where only a nick is known.
    """
    room, jid = order.room, order.room_jid
    decisions = Selector(room, room_jid=jid, endpoint=Endpoint.VALIDATE_ACCESS)
    match order.verb:
        case Verb.FORGET:
            change = Change.DROP if order.mode is Mode.DROP else Change.SUSPECT
            return [(Selector(room, order.user, jid, order.meeting_id), change)]
        case Verb.KICK:
            if order.user is None:
                return [(decisions, Change.SUSPECT)]
            shared = [(replace(decisions, subject=subject), Change.SUSPECT) for subject in (GUEST, TOKEN)]
            return [revoked(order, order.user), *shared]
        case Verb.END:
            return [(decisions, Change.REVOKE), (Selector(room, room_jid=jid), Change.SUSPECT)]
        case Verb.REFRESH:
            return [(Selector(room, room_jid=jid, endpoint=Endpoint.ROOM_CREATED), Change.SUSPECT)]
        case Verb.WHO:
            return []


def revoked(order: Order, user: str) -> tuple[Selector, Change]:
    """This user is not let in from memory again."""
    return Selector(order.room, user, order.room_jid, endpoint=Endpoint.VALIDATE_ACCESS), Change.REVOKE


def expiry_body(order: Order, key: str | None, at: float) -> bytes:
    """The body of the event `order-expired`."""
    said = {
        "roomName": order.room,
        **order.document(),
        "event": "order-expired",
        "timestamp": int(at),
        "order": order.id,
    }
    del said["room"]
    return json.dumps(said if key is None else {**said, "idempotencyKey": key}).encode()


@dataclass(slots=True)
class _Sent:
    """An order that waits, and what the modules have said about it so far."""

    order: Order
    expires_at: float
    without: set[str] = field(default_factory=set)
    """The hosts that have no such room."""


class Waiting:
    """The orders that have not ended. Instants are seconds of one monotonic clock; nothing here reads it."""

    def __init__(self) -> None:
        """None wait."""
        self._by_id: dict[str, _Sent] = {}
        self._by_room: dict[str, dict[str, None]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return len(self._by_id)

    def __contains__(self, order_id: str) -> bool:
        """Whether this order waits."""
        return order_id in self._by_id

    def get(self, order_id: str) -> Order | None:
        """The order, if it waits."""
        sent = self._by_id.get(order_id)
        return None if sent is None else sent.order

    def add(self, order: Order, expires_at: float) -> bool:
        """Let one wait; True if it can be sent now, since no earlier one of its room waits."""
        self._by_id[order.id] = _Sent(order, expires_at)
        of_room = self._by_room.setdefault(order.room or "", {})
        of_room[order.id] = None
        return len(of_room) == 1

    def of_room(self, order: Order) -> Iterator[Order]:
        """This order and the earlier ones of its room, oldest first; nothing if it does not wait."""
        of_room = self._by_room.get(order.room or "", {}) if order.id in self._by_id else {}
        for each in list(of_room):
            yield self._by_id[each].order
            if each == order.id:
                break

    def first(self) -> Iterator[Order]:
        """The orders that can be sent: the first of each room."""
        for of_room in list(self._by_room.values()):
            yield self._by_id[next(iter(of_room))].order

    def end(self, order_id: str) -> Order | None:
        """Remove an order; returns the next one of its room, which can be sent now."""
        sent = self._by_id.pop(order_id, None)
        if sent is None:
            return None
        room = sent.order.room or ""
        of_room = self._by_room[room]
        was_first = next(iter(of_room)) == order_id
        del of_room[order_id]
        if not of_room:
            del self._by_room[room]
            return None
        return self._by_id[next(iter(of_room))].order if was_first else None

    def absent(self, order_id: str, host: str, connected: set[str]) -> bool:
        """The module of this host has no such room; True if no other one can have it."""
        sent = self._by_id[order_id]
        sent.without.add(host)
        if sent.order.host is not None:
            return host in ("", sent.order.host)  # only this module can know; it may be away for a moment
        return not host or connected <= sent.without

    def expired(self, now: float) -> list[Order]:
        """The orders whose time is over, in the order in which they came."""
        return [sent.order for sent in self._by_id.values() if sent.expires_at <= now]
