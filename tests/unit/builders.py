"""Values with defaults, so that a test names only what it is about."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sidecar.core.breaker import BreakerRules
from sidecar.core.model import CacheControl, Endpoint, Entry, Event, Key, Lifetimes, Query, Rejected, Replied, Verdict
from sidecar.core.policy import OnUnavailable, Policy

ALLOW = b'{"allowed":true,"reason":null}'
DENY = b'{"allowed":false,"reason":"not invited"}'
LOBBY = b'{"allowed":true,"reason":null,"requireLobby":true}'
CONFIG = b'{"moderated":true}'

ALLOW_LIFETIMES = Lifetimes(15, 15, 3600)
DENY_LIFETIMES = Lifetimes(5, 0, 3600)
CONFIG_LIFETIMES = Lifetimes(5, 0, 86_400)

_BODIES = {Verdict.ALLOW: ALLOW, Verdict.DENY: DENY, Verdict.CONFIG: CONFIG, Verdict.PRIVATE: b""}
_LIFETIMES = {
    Verdict.ALLOW: ALLOW_LIFETIMES,
    Verdict.DENY: DENY_LIFETIMES,
    Verdict.CONFIG: CONFIG_LIFETIMES,
    Verdict.PRIVATE: Lifetimes(0, 0, 0),
}


def a_key(room: str = "standup", subject: str = "jid ann@example.org") -> Key:
    """The key of a decision."""
    return Key(Endpoint.VALIDATE_ACCESS, room, f"{room}@muc.example.org", subject=subject)


def a_config_key(room: str = "standup") -> Key:
    """The key of a room config."""
    return Key(Endpoint.ROOM_CREATED, room)


def a_query(key: Key | None = None, caller: str = "ann@example.org") -> Query:
    """A well-formed question."""
    return Query(key or a_key(), b"{}", received_at=0.0, caller=caller)


def an_entry(
    verdict: Verdict = Verdict.ALLOW,
    *,
    asked_at: float = 0.0,
    settled_at: float | None = None,
    lifetimes: Lifetimes | None = None,
    spread: float = 0.0,
    body: bytes = b"",
) -> Entry:
    """A remembered answer with the lifetimes of the contract, answered as soon as it was asked."""
    settled_at = asked_at if settled_at is None else settled_at
    return Entry(verdict, body or _BODIES[verdict], asked_at, settled_at, lifetimes or _LIFETIMES[verdict], spread)


def an_event(
    number: int = 0,
    room: str = "standup",
    endpoint: Endpoint = Endpoint.USER_JOINED,
    *,
    body: bytes = b"",
    at: float = 1_700_000_000.0,
) -> Event:
    """Something that happened; the number makes its idempotency key."""
    return Event(endpoint, room, body or b'{"n":%d}' % number, f"{room}-{number}", at)


def a_policy(
    allow: Lifetimes = ALLOW_LIFETIMES,
    deny: Lifetimes = DENY_LIFETIMES,
    *,
    deadline: float = 4.0,
    answer_within: float = 0.5,
    on_unavailable: OnUnavailable = OnUnavailable.REFUSE,
    default_body: bytes | None = None,
) -> Policy:
    """The policy of the contract for decisions."""
    return Policy(deadline, answer_within, allow, deny, on_unavailable, default_body)


def a_config_policy() -> Policy:
    """The policy of the contract for room configs."""
    return a_policy(allow=CONFIG_LIFETIMES)


def allowed(cache_control: CacheControl | None = None) -> Replied:
    """The backend lets somebody in."""
    return Replied(200, ALLOW, Verdict.ALLOW, cache_control or CacheControl())


def denied(cache_control: CacheControl | None = None) -> Replied:
    """The backend keeps somebody out."""
    return Replied(200, DENY, Verdict.DENY, cache_control or CacheControl())


def configured(cache_control: CacheControl | None = None) -> Replied:
    """The backend says how a room is to be."""
    return Replied(200, CONFIG, Verdict.CONFIG, cache_control or CacheControl())


def unwanted(status: int) -> Rejected:
    """The backend does not want a room."""
    return Rejected(status, b'{"error":"no such meeting"}')


def breaker_rules(
    *, failure_ratio: float = 0.5, minimum_calls: int = 10, minimum_rooms: int = 3, window: float = 10.0
) -> BreakerRules:
    """The breaker of the contract."""
    return BreakerRules(failure_ratio, minimum_calls, minimum_rooms, window)


def make_certificate(certificate: Path, key: Path, name: str = "localhost", days: int = 30) -> None:
    """A certificate that its own key has signed, in files."""
    order = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    order += ["-days", str(days), "-subj", f"/O=Test/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*order, "-out", str(certificate), "-keyout", str(key)], check=True, capture_output=True)
