"""The values that all parts use: questions, outcomes of the backend, cache entries, answers, events.

Every value that crosses a module boundary is frozen. Those that are made for every request are tuples, because making a
frozen dataclass takes three times as long. Instants are float seconds of one monotonic clock and end in `_at` or
`_until`; durations are float seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple, Self


class Kind(StrEnum):
    """What an endpoint is for. A valid answer looks different for each kind."""

    DECISION = "decision"
    CONFIG = "room config"
    EVENT = "event"


class Endpoint(StrEnum):
    """The endpoints Prosody calls; the value is the last part of the path, `kind` what it is for."""

    kind: Kind

    def __new__(cls, value: str, kind: Kind = Kind.EVENT) -> Self:
        """One member."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.kind = kind
        return member

    ROOM_CREATED = "room-created", Kind.CONFIG
    VALIDATE_ACCESS = "validate-access", Kind.DECISION
    USER_JOINED = "user-joined"
    USER_LEFT = "user-left"
    ROOM_DESTROYED = "room-destroyed"
    MODERATOR_CHANGED = "moderator-changed"
    RECORDING = "recording"
    ORDER_EXPIRED = "order-expired"
    """Sent by the sidecar itself; Prosody does not call it."""


GUEST = "guest"
"""The subject that all guests of a room share, until the backend says `Cache-Control: private`."""


class Key(NamedTuple):
    """Every input on which the backend's answer may depend, and no input that differs from one request to the next.

    `meeting_id` and the subjects are JSON texts, so that 1 is not "1". `token` is a SHA-256 hex digest. The subject of
    a user who has nothing but a token is "token".
    """

    endpoint: Endpoint
    room: str
    room_jid: str | None = None
    meeting_id: str | None = None
    subject: str | None = None
    token: str | None = None

    @property
    def of_config(self) -> Key:
        """The key of the room's config."""
        return Key(Endpoint.ROOM_CREATED, self.room, self.room_jid)


class Asker(NamedTuple):
    """Who asks, as far as this says whether several failures have several causes."""

    name: str = ""
    """The same for all questions of one user on one connection; empty: unknown."""
    guest: bool = False
    """Nobody knows who it is: one person may be many guests."""


NOBODY = Asker()


class Query(NamedTuple):
    """One well-formed question of Prosody: its key, and the body, which is sent to the backend byte for byte."""

    key: Key
    body: bytes
    received_at: float
    caller: str = ""
    """The bare JID of the user who wants to join; empty for a room config."""
    traceparent: str = ""
    asker: Asker = NOBODY
    token: str = ""
    """The user's token, if the body has one that can go into a header."""

    def for_one_guest(self) -> Query:
        """The same question with a subject of its own, for a guest who shares no answer with other guests."""
        return self._replace(key=self.key._replace(subject=jid_subject(self.caller)))

    def __repr__(self) -> str:
        """Without the body, which may hold a token."""
        return f"Query({self.key!r}, received_at={self.received_at!r})"


def jid_subject(bare_jid: str) -> str:
    """The subject of a user who is known only by a JID."""
    return f"jid {bare_jid}"


class Verdict(StrEnum):
    """What a remembered answer says; `endpoint` is the one that it belongs to."""

    endpoint: Endpoint

    def __new__(cls, value: str, endpoint: Endpoint) -> Self:
        """One member."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.endpoint = endpoint
        return member

    ALLOW = "allow", Endpoint.VALIDATE_ACCESS
    DENY = "deny", Endpoint.VALIDATE_ACCESS
    CONFIG = "config", Endpoint.ROOM_CREATED
    PRIVATE = "private", Endpoint.VALIDATE_ACCESS
    """Of a room, not of a user: its guests are asked about one by one."""


ANSWERS = (Verdict.ALLOW, Verdict.DENY, Verdict.CONFIG)
"""The verdicts that answer a question."""


class Lifetimes(NamedTuple):
    """How long an answer may be used, in seconds; both stale limits count from the end of `fresh`."""

    fresh: float
    stale_while_revalidate: float
    stale_if_error: float

    @property
    def total(self) -> float:
        """Seconds after the question at which the answer is expired."""
        return self.fresh + max(self.stale_while_revalidate, self.stale_if_error)

    def at_most(self, other: Lifetimes) -> Lifetimes:
        """The shorter lifetime of two, for each limit."""
        if self == other:
            return self
        return Lifetimes(
            min(self.fresh, other.fresh),
            min(self.stale_while_revalidate, other.stale_while_revalidate),
            min(self.stale_if_error, other.stale_if_error),
        )


SUSPECT = 2.0
"""The `spread` of an entry that an order made suspect. It has a place in memory and on disk, also of older versions."""


class Entry(NamedTuple):
    """One remembered answer. Its age counts from the moment when the question was sent, not from the answer."""

    verdict: Verdict
    body: bytes
    asked_at: float
    settled_at: float
    lifetimes: Lifetimes
    spread: float = 0.0
    """0 to 1: how much of the jitter shortens the fresh time of this entry. SUSPECT: an order took that time away."""

    @property
    def suspect(self) -> bool:
        """Whether an order says that the backend must be asked again before this entry is used."""
        return self.spread >= SUSPECT

    def __repr__(self) -> str:
        """Without the body, which may hold a room's password."""
        return f"Entry({self.verdict!s}, asked_at={self.asked_at!r}, {self.lifetimes!r})"


@dataclass(frozen=True, slots=True)
class CacheControl:
    """How the backend's `Cache-Control` shortens the lifetimes of the policy; None: it does not."""

    no_store: bool = False
    private: bool = False
    must_revalidate: bool = False
    max_age: float | None = None
    stale_while_revalidate: float | None = None
    stale_if_error: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """How long the backend took for an outcome."""

    took: float | None = field(default=None, compare=False)
    """Seconds from sending the question to the arrival of the answer, read or not; None: not measured."""


@dataclass(frozen=True, slots=True)
class Replied(Timed):
    """2xx with a valid body. For an event there is no verdict."""

    status: int
    body: bytes = field(default=b"", repr=False)
    verdict: Verdict | None = None
    cache_control: CacheControl = CacheControl()
    remark: str = ""
    """What of a decision was left out, and why; empty: nothing."""


@dataclass(frozen=True, slots=True)
class Rejected(Timed):
    """The backend understood and said no: an unknown room, a definite deny, an event that it refuses for good."""

    status: int
    body: bytes = field(default=b"", repr=False)
    verdict: Verdict | None = None
    cache_control: CacheControl = CacheControl()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Misconfigured(Timed):
    """The backend does not accept our credentials, or we do not trust its certificate: an operator must fix this."""

    reason: str
    status: int | None = None
    alive: bool = False
    """See `Unavailable`."""


class Failure(Enum):
    """How far a question came that got no usable answer."""

    UNSENT = "nothing was sent"
    RESET = "the connection broke before the answer was complete"
    TIMEOUT = "no complete answer in time"
    USELESS = "a complete answer that decides nothing"
    OURS = "this machine could not send it"
    UNREADABLE = "a room config with a protective setting that cannot be read"


@dataclass(frozen=True, slots=True)
class Unavailable(Timed):
    """No usable answer. The failure is `UNSENT` only if certainly no byte of the request was sent. `OURS` says nothing
    about the backend: there was no free place, no file descriptor, or no time."""

    reason: str
    failure: Failure = Failure.USELESS
    status: int | None = None
    retry_after: float | None = None
    """Seconds of the backend's `Retry-After`."""
    alive: bool = False
    """The answer decides nothing, but shows that the backend works: a 4xx with a JSON body."""


Outcome = Replied | Rejected | Misconfigured | Unavailable


class Carried(NamedTuple):
    """The outcome of one question; `asked_at` is the instant just before it was sent."""

    outcome: Outcome
    asked_at: float


@dataclass(frozen=True, slots=True)
class Released:
    """Decide again: the breaker opened while the question waited for a place, so that it was not asked; or a later one
    with the same key was answered first."""


class Source(StrEnum):
    """Where an answer comes from; the label `source` of the metrics."""

    HIT = "hit"
    STALE = "stale"
    BACKEND = "backend"
    REJECTED = "rejected"
    POLICY = "policy"
    OUTBOX = "outbox"


class Answer(NamedTuple):
    """What Prosody gets, and where it comes from (in the terms of RFC 9211)."""

    status: int
    body: bytes
    source: Source
    allowed: bool | None = None
    ttl: int | None = None
    forwarded: str | None = None
    """`miss` or `stale`: why the question went to the backend; None when it did not."""
    forward_status: int | None = None
    stored: bool = False
    collapsed: bool = False
    detail: str | None = None
    retry_after: int | None = None

    @property
    def refuses_room(self) -> bool:
        """Whether this answer to room-created, by policy, keeps the room closed: no config was to be had."""
        return self.source is Source.POLICY and self.status >= 500

    def __repr__(self) -> str:
        """Without the body, which may hold a room's password."""
        return f"Answer({self.status}, {self.source!s}, detail={self.detail!r})"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, to be delivered at least once. `accepted_at` is wall time (Unix seconds)."""

    endpoint: Endpoint
    room: str
    body: bytes = field(repr=False)
    idempotency_key: str
    accepted_at: float
    traceparent: str = ""
