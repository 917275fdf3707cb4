"""Which remembered answers an operator or an order means, and what happens to them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from sidecar.core.model import Endpoint, Key


@dataclass(frozen=True, slots=True)
class Selector:
    """What an operator or an order means; a part that is None fits everything."""

    room: str | None = None
    subject: str | None = None
    room_jid: str | None = None
    """Beside `room`, where one name is used under several domains. A key without a JID fits too."""
    meeting_id: str | None = None
    """As JSON text."""
    endpoint: Endpoint | None = None

    def fits(self, key: Key) -> bool:
        """Whether this key is meant. A subject is a bare JID, a user id, an e-mail, `token` or `guest`."""
        if self.room is not None and key.room != self.room:
            return False
        if self.room_jid is not None and key.room_jid not in (None, json.dumps(self.room_jid)):
            return False
        if self.endpoint not in (None, key.endpoint) or self.meeting_id not in (None, key.meeting_id):
            return False
        return self.subject is None or (key.subject is not None and named(key.subject, self.subject))

    @property
    def mark(self) -> Key | None:
        """Where it is remembered that a user was put out of a room, under whatever key the backend may be asked about
        this user; None: the selector names no such user."""
        if self.room is None or self.subject is None or self.endpoint not in (None, Endpoint.VALIDATE_ACCESS):
            return None
        room_jid = None if self.room_jid is None else json.dumps(self.room_jid)
        return Key(Endpoint.VALIDATE_ACCESS, self.room, room_jid, subject=_mark_of(self.subject))


class Change(Enum):
    """What happens to the entries that are meant."""

    DROP = "they are deleted"
    SUSPECT = "the backend is asked again before they are used"
    REVOKE = "an allow becomes an expired deny, which lets nobody in while the backend is away"


class Made(NamedTuple):
    """A change that was made here, and that all shards must hear of."""

    selector: Selector
    change: Change
    made_at: float
    """Unix seconds."""
    epoch: str = ""
    """The epoch of the shared memory that has it; empty: none."""
    at: float | None = None
    """The instant, if this process has made it."""


def marks(key: Key) -> Iterator[Key]:
    """Where it may be remembered that the user of a key was put out."""
    if key.subject is not None:
        for name in names(key.subject) | {key.subject}:
            for room_jid in {None, key.room_jid}:
                yield Key(Endpoint.VALIDATE_ACCESS, key.room, room_jid, subject=_mark_of(name))


def is_mark(key: Key) -> bool:
    """Whether this key is a `mark`, and not that of a question."""
    return key.subject is not None and key.subject.startswith(_PUT_OUT)


_PUT_OUT = "put-out "


def _mark_of(name: str) -> str:
    return _PUT_OUT + json.dumps(name)


def named(subject: str, name: str) -> bool:
    """Whether an operator who types this name means that subject of a key."""
    return name == subject or name in names(subject)


def names(subject: str) -> frozenset[str]:
    """How an operator may call the subject of a key, besides by its own text."""
    kind, _, rest = subject.partition(" ")
    if kind == "jid" or not rest:
        return frozenset((rest or kind,))
    try:
        known: Any = json.loads(rest)  # a user id or an e-mail, or a list of both; 0.1 had also a JID and an e-mail
    except ValueError:
        return frozenset((subject,))
    return frozenset(map(str, known if kind.endswith("+email") and isinstance(known, list) else [known]))
