"""Fences: whether an answer that another sidecar remembers still holds.

A fence is a value in the shared memory for all that an order may mean: everything, a room, a meeting, a user. It has
one part for each kind of change, and each part is a random text that is replaced when there is such a change. An answer
is kept with the fences as they were before the backend was asked. If they are the same when it is read, nothing has
taken it away since.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

from sidecar.core.model import Endpoint, Key, Verdict
from sidecar.core.selection import Change, Selector, names


class Fence(NamedTuple):
    """The parts of one fence; an empty one is missing, and is never the same as another."""

    drop: str = ""
    revoke: str = ""
    suspect: str = ""
    denied: str = ""
    """Replaced when somebody is denied in the room."""


MISSING = Fence()

Vector = tuple[Fence, ...]
"""The fences of a key, in the order of `scopes`."""


class Standing(Enum):
    """What a remembered answer is worth."""

    HOLDS = "it can be used as long as it is fresh"
    SUSPECT = "the backend is asked before it is used"
    REVOKED = "it keeps the user out, as an expired deny does"
    GONE = "it is not used"


PARTS = {Change.DROP: "drop", Change.REVOKE: "revoke", Change.SUSPECT: "suspect"}
"""The part of a fence that a change replaces."""


def standing(verdict: Verdict, then: Sequence[Fence], now: Sequence[Fence]) -> Standing:
    """Compare the fences with which an answer was kept with those of now."""
    if len(then) != len(now):
        return Standing.GONE
    pairs = list(zip(then, now, strict=True))
    to_be_same = ["drop", "revoke", "suspect", "denied"] if verdict is Verdict.ALLOW else ["drop", "suspect"]
    changed = {part for part in to_be_same if not all(_same(part, *pair) for pair in pairs)}
    if not changed:
        return Standing.HOLDS
    if "drop" in changed:
        return Standing.GONE
    if "revoke" in changed:
        return Standing.REVOKED
    return Standing.SUSPECT


def _same(part: str, then: Fence, now: Fence) -> bool:
    return bool(getattr(then, part)) and getattr(then, part) == getattr(now, part)


def scopes(key: Key) -> tuple[str, ...]:
    """What the fences of a key are for. The room's is the second."""
    kind = key.endpoint.value
    labels = [_label(kind), _label(kind, "room", key.room)]
    if key.meeting_id is not None:
        labels.append(_label(kind, "meeting", key.meeting_id))
    for name in sorted(names(key.subject)) if key.subject is not None else ():
        labels += [_label(kind, "user", name), _label(kind, "user", name, key.room)]
    return tuple(labels)


def moved(selector: Selector) -> tuple[str, ...]:
    """The fences that a change replaces. They may mean more than the selector does, and never less."""
    meant = [selector.endpoint] if selector.endpoint else [Endpoint.VALIDATE_ACCESS, Endpoint.ROOM_CREATED]
    return tuple(label for endpoint in meant for label in _moved(endpoint.value, selector))


def _moved(kind: str, selector: Selector) -> Iterator[str]:
    room, subject = selector.room, selector.subject
    if subject is not None:
        for name in sorted(names(subject) | {subject}):
            yield _label(kind, "user", name) if room is None else _label(kind, "user", name, room)
    elif room is not None:
        yield _label(kind, "room", room)
    elif selector.meeting_id is not None:
        yield _label(kind, "meeting", selector.meeting_id)
    else:
        yield _label(kind)


def _label(*parts: Any) -> str:
    return json.dumps(parts)
