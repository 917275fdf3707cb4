"""Facts that the engines emit; logs and metrics observe them. No fact has a body, a token, or the name of a user."""

from __future__ import annotations

from collections.abc import Callable
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


class Asked(NamedTuple):
    """The backend was asked once. `outcome` is replied, rejected, misconfigured, unavailable, unreadable, timeout …"""

    endpoint: Endpoint
    outcome: str
    seconds: float
    status: int | None = None
    reason: str = ""
    room: str = ""
    retry: bool = False


class CacheControlSeen(NamedTuple):
    """The backend let a user in, or configured a room. `forbids`: the directives of `Cache-Control` because of which
    this answer cannot be used in an outage; empty if it can."""

    endpoint: Endpoint
    forbids: str = ""


class BreakerChanged(NamedTuple):
    """A breaker opened (again) or closed. The state is open, closed, or open for some users."""

    endpoint: Endpoint
    state: str
    reason: str = ""


class LimitChanged(NamedTuple):
    """Another number of calls to the backend may be under way."""

    limit: int
    cause: Cause


class EventAccepted(NamedTuple):
    """An event is in the outbox."""

    endpoint: Endpoint
    room: str


class EventDelivered(NamedTuple):
    """The backend accepted an event. `lag` is the seconds since the sidecar accepted it."""

    endpoint: Endpoint
    room: str
    attempts: int
    lag: float


class EventParked(NamedTuple):
    """The backend refused this event, or it is too old; an operator can look at it."""

    endpoint: Endpoint
    room: str
    status: int | None
    reason: str


class OutboxChanged(NamedTuple):
    """The outbox became full and refuses events, or accepts them again."""

    full: bool
    reason: str = ""


class OrderTaken(NamedTuple):
    """An order is on disk. `sender` is who has sent it: a key of the control listener, or a user of this machine."""

    order: str
    verb: str
    room: str
    sender: str


class OrderEnded(NamedTuple):
    """What became of an order: done, absent, failed or expired."""

    order: str
    verb: str
    room: str
    result: str
    seconds: float
    error: str = ""


class Intruder(NamedTuple):
    """A request to the control listener had no valid token or signature."""

    peer: str


class DiskChanged(NamedTuple):
    """A file of the state folder became unusable, or usable again."""

    file: str
    usable: bool
    reason: str = ""


class Reloaded(NamedTuple):
    """The config was read again; `problems` is empty if it was applied."""

    problems: tuple[str, ...] = ()
    restart_only: tuple[str, ...] = ()


class LinkChanged(NamedTuple):
    """A module's link is up, or it ended. `host` is the MUC component's domain, `boot` names the run of its Prosody."""

    host: str
    boot: str
    version: str
    up: bool
    reason: str = ""


class LinkIgnored(NamedTuple):
    """A message on a link was ignored."""

    reason: str


class SharedAsked(NamedTuple):
    """The shared memory was asked about a key: hit, suspect, outdated, miss, failed, or forged."""

    outcome: str


class SharedChanged(NamedTuple):
    """This sidecar is in touch with the others, or out of touch."""

    in_touch: bool
    reason: str = ""


class StrangersChanged(NamedTuple):
    """So many of the sidecars that use this engine have another key, or other domains."""

    strangers: int
    members: int

    @property
    def advice(self) -> str:
        """What is wrong, and what to do."""
        return (
            f"{self.strangers} of {self.members} sidecars have another key (shared.key_file) or other domains "
            "(shared.muc_domains) than this one, so that they and this one do not hear each other's denies and orders. "
            "Make both the same on all machines, and restart the sidecars where they were changed"
        )


class Notice(NamedTuple):
    """Something that an operator should see once: a start, a stop, a renamed file."""

    message: str
    level: str = "info"


class Crashed(NamedTuple):
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
    | StrangersChanged
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
