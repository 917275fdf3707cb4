"""Facts that the engines emit; logs and metrics observe them. No fact has a body, a token, or the name of a user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.core.concurrency import Cause
from sidecar.core.model import Answer, Endpoint


class Resolved(NamedTuple):
    """A request was answered. `subject` is a digest, unless the operator has set `log.identities`."""

    endpoint: str
    status: int
    seconds: float
    answer: Answer | None = None
    room: str = ""
    subject: str = ""
    problem: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """The backend was asked once. `outcome` is replied, rejected, misconfigured, unavailable, unreadable, timeout …"""

    endpoint: Endpoint
    outcome: str
    seconds: float
    status: int | None = None
    reason: str = ""
    room: str = ""
    retry: bool = False


@dataclass(frozen=True, slots=True)
class CacheControlSeen:
    """The backend let a user in, or configured a room. `forbids`: the directives of `Cache-Control` because of which
    this answer cannot be used in an outage; empty if it can."""

    endpoint: Endpoint
    forbids: str = ""


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A breaker opened (again) or closed. The state is open, closed, or open for some users."""

    endpoint: Endpoint
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LimitChanged:
    """Another number of calls to the backend may be under way."""

    limit: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class EventAccepted:
    """An event is in the outbox."""

    endpoint: Endpoint
    room: str


@dataclass(frozen=True, slots=True)
class EventDelivered:
    """The backend accepted an event. `lag` is the seconds since the sidecar accepted it."""

    endpoint: Endpoint
    room: str
    attempts: int
    lag: float


@dataclass(frozen=True, slots=True)
class EventParked:
    """The backend refused this event, or it is too old; an operator can look at it."""

    endpoint: Endpoint
    room: str
    status: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class OutboxChanged:
    """The outbox became full and refuses events, or accepts them again."""

    full: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OrderTaken:
    """An order is on disk. `sender` is who has sent it: a key of the control listener, or a user of this machine."""

    order: str
    verb: str
    room: str
    sender: str


@dataclass(frozen=True, slots=True)
class OrderEnded:
    """What became of an order: done, absent, failed or expired."""

    order: str
    verb: str
    room: str
    result: str
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Intruder:
    """A request to the control listener had no valid token or signature."""

    peer: str


@dataclass(frozen=True, slots=True)
class DiskChanged:
    """A file of the state folder became unusable, or usable again."""

    file: str
    usable: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The config was read again; `problems` is empty if it was applied."""

    problems: tuple[str, ...] = ()
    restart_only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A module's link is up, or it ended. `host` is the MUC component's domain, `boot` names the run of its Prosody."""

    host: str
    boot: str
    version: str
    up: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LinkIgnored:
    """A message on a link was ignored."""

    reason: str


@dataclass(frozen=True, slots=True)
class SharedAsked:
    """The shared memory was asked about a key: hit, suspect, outdated, miss, failed, or forged."""

    outcome: str


@dataclass(frozen=True, slots=True)
class SharedChanged:
    """This sidecar is in touch with the others, or out of touch."""

    in_touch: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that an operator should see once: a start, a stop, a renamed file."""

    message: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Crashed:
    """A defect in this program was caught at the edge; the request was still answered."""

    where: str
    error: BaseException


Fact = (
    Resolved
    | Asked
    | CacheControlSeen
    | BreakerChanged
    | LimitChanged
    | EventAccepted
    | EventDelivered
    | EventParked
    | OutboxChanged
    | OrderTaken
    | OrderEnded
    | Intruder
    | DiskChanged
    | Reloaded
    | LinkChanged
    | LinkIgnored
    | SharedAsked
    | SharedChanged
    | Notice
    | Crashed
)
Emit = Callable[[Fact], None]


def broadcast(*observers: Emit) -> Emit:
    """One emitter that passes each fact to every observer, in order. An observer that fails is skipped: the caller
    answers a join, and a full disk for the log must not refuse a user."""

    def emit(fact: Fact) -> None:
        for observe in observers:
            try:  # noqa: SIM105 - a context manager would take as long as an observer, several times a request
                observe(fact)
            except Exception:  # noqa: BLE001, S110
                pass

    return emit
