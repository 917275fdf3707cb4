"""What a decision says: the fields that are understood, and how the body is kept and answered.

A field with a value that cannot be read is left out, with a remark for the log. Only `requireLobby` then counts as
true: without it, somebody would come in who should wait.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sidecar.core.durations import span
from sidecar.core.model import Entry, Verdict
from sidecar.core.protection import unreadable

TEXT_LIMIT = 2000
"""Characters of a reason, title or URL. The module shows less of the first two."""

STATUS_LIMIT = 100
"""Characters of a `status`."""

MOST_MINUTES = 2**31 - 1
"""More minutes than a meeting can last."""

PERSONAL = frozenset({"isModerator", "requireLobby", "redirectUrl"})
"""Fields about one person: an answer with one of them is for no other guest."""

_PERSONAL = tuple(f'"{name}":'.encode() for name in PERSONAL)
"""What a body holds if it has one of them. Its `configuration` may have fields of the same names."""

OWN = ("decidedBy", "decisionId")
"""Fields that the sidecar adds to its answer. The backend's are left out."""


class Decision(NamedTuple):
    """A decision as it is kept. The body is compact JSON, and begins with `allowed` and `reason`."""

    body: bytes
    personal: bool
    """It holds a field about one person."""
    remark: str
    """What was left out, and why; empty: nothing."""


def read_decision(document: Mapping[str, Any]) -> Decision:
    """The decision in a JSON object with a boolean `allowed`."""
    known: dict[str, Any] = {"allowed": document["allowed"], "reason": None}
    known |= {
        name: value[:TEXT_LIMIT] for name in ("reason", "meetingTitle") if isinstance(value := document.get(name), str)
    }
    remarks = []
    for name, (read, expected) in _READERS.items():
        said = document.get(name)
        if said is None or said == "":
            continue
        value = read(said)
        if value is not None:
            known[name] = value
        elif name == "requireLobby":
            known[name] = True
            remarks.append(f"{name} must be {expected}; the user waits in the lobby")
        else:
            remarks.append(f"{name} must be {expected}; it is left out")
    extras = {name: value for name, value in document.items() if name not in _NO_EXTRAS}
    complaint = _complaint(extras.get("configuration"))
    if complaint:
        del extras["configuration"]
        remarks.append(f"{complaint}; it is left out")
    personal = any(name in known for name in PERSONAL)
    return Decision(_body(known, extras), personal, "; ".join(remarks))


def is_personal(body: bytes) -> bool:
    """Whether the body of a decision holds a field about one person. It may have been kept by an older version."""
    return any(mark in body for mark in _PERSONAL) and not PERSONAL.isdisjoint(json.loads(body))


def requires_lobby(body: bytes) -> bool:
    """Whether the body of a decision says that the user has to wait in the lobby."""
    return b'"requireLobby":true' in body and json.loads(body).get("requireLobby") is True


def makes_moderator(body: bytes) -> bool:
    """Whether the body of a decision says that the user is a moderator."""
    return b'"isModerator":true' in body and json.loads(body).get("isModerator") is True


def restricts(verdict: Verdict | None, body: bytes) -> bool:
    """Whether an answer keeps the user out, or in the lobby. Such an answer is on disk before anybody hears of it, and
    no answer to an older question takes its place."""
    return verdict is Verdict.DENY or (verdict is Verdict.ALLOW and requires_lobby(body))


def strictness(entry: Entry) -> int:
    """2: the user is kept out; 1: kept in the lobby; 0: neither."""
    return (entry.verdict is Verdict.DENY) + restricts(entry.verdict, entry.body)


def counts_more(entry: Entry, other: Entry) -> bool:
    """Whether the first of two decisions counts, and not the other one: the one that was asked for later. Of two that
    were under way at the same time, nobody knows which one the backend decided first; then the stricter one counts."""
    more = strictness(entry) - strictness(other)
    since = entry.settled_at if more > 0 else entry.asked_at
    return since > (other.settled_at if more < 0 else other.asked_at)


def is_lasting(entry: Entry) -> bool:
    """Whether the entry says what must not happen: it matters when it is too old to be an answer too. So it does not
    expire on disk, strangers cannot evict it, and it is written and read before the others."""
    return entry.verdict is Verdict.PRIVATE or restricts(entry.verdict, entry.body)


def is_protective(row: Entry | None) -> bool:
    """Whether a crash must not bring back what this row replaces: a deletion (None), what is lasting, an answer that an
    order made suspect."""
    return row is None or row.suspect or is_lasting(row)


def aged(body: bytes, seconds: float) -> bytes:
    """The body of a decision that was asked for so many seconds ago: `remainingMinutes` is reduced, down to 0."""
    if b'"remainingMinutes":' not in body:
        return body
    document = json.loads(body)
    minutes = _minutes(document.get("remainingMinutes"))
    if minutes is None:
        return body
    left = minutes - max(0.0, seconds) / 60
    return _compact(document | {"remainingMinutes": max(0, math.floor(left * 100) / 100)})


def stamped(body: bytes, decided_by: str, decision_id: str) -> bytes:
    """The body of a decision with who decided, and with the id under which the log has this answer."""
    return body[:-1] + f',"decidedBy":"{decided_by}","decisionId":"{decision_id}"}}'.encode()


def configuration_in(body: bytes) -> bytes | None:
    """The room config that a decision brings along, as JSON; None: it brings none."""
    if b'"configuration":' not in body:
        return None
    configuration = json.loads(body).get("configuration")
    return _compact(configuration) if isinstance(configuration, dict) else None


def without_configuration(body: bytes) -> bytes:
    """The body of a decision without the room config that it brought along."""
    if b'"configuration":' not in body:
        return body
    return _compact({name: value for name, value in json.loads(body).items() if name != "configuration"})


def in_words(body: bytes) -> list[str]:
    """What a decision says beside yes or no, for an operator."""
    document = json.loads(body)
    minutes = _minutes(document.get("remainingMinutes"))
    said = {
        "is a moderator": document.get("isModerator") is True,
        "waits in the lobby": document.get("requireLobby") is True,
        f"status {document.get('status')}": "status" in document,
        "has to log in": document.get("requireAuth") is True,
        "is sent to another page": "redirectUrl" in document,
        "with a room config": isinstance(document.get("configuration"), dict),
        f"the meeting lasted another {span((minutes or 0) * 60, 1)} then": minutes is not None,
    }
    return [words for words, is_so in said.items() if is_so]


def _flag(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    if value == "true" or (_is_number(value) and value == 1):
        return True
    return False if value == "false" or (_is_number(value) and value == 0) else None


_DECIMAL = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def _minutes(value: Any) -> float | None:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    return min(max(0, value), MOST_MINUTES) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(most: int) -> Callable[[Any], str | None]:
    return lambda value: value if isinstance(value, str) and len(value) <= most else None


_READERS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "isModerator": (_flag, "true or false"),
    "requireLobby": (_flag, "true or false"),
    "remainingMinutes": (_minutes, "a number"),
    "status": (_text(STATUS_LIMIT), f"a text of at most {STATUS_LIMIT} characters"),
    "requireAuth": (_flag, "true or false"),
    "redirectUrl": (_text(TEXT_LIMIT), f"a text of at most {TEXT_LIMIT} characters"),
}
"""For each field: its value, or None if it cannot be read, and what it has to be."""


_NO_EXTRAS = frozenset({"allowed", "reason", "meetingTitle", *_READERS, *OWN})


def _complaint(configuration: Any) -> str:
    """Why a `configuration` cannot be used; empty: it can, or there is none."""
    if configuration is None:
        return ""
    if not isinstance(configuration, dict):
        return "configuration must be an object"
    problems = "; ".join(unreadable(configuration))
    return f"configuration: {problems}" if problems else ""


def _body(known: dict[str, Any], extras: dict[str, Any]) -> bytes:
    try:
        return _compact(known | extras)
    except (ValueError, RecursionError):
        # Some JSON can be read but not written: 1e999, or very deep nesting. What was checked still counts.
        return _compact(known)


def _compact(document: Mapping[str, Any]) -> bytes:
    return _encode(document).encode("ascii")


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
