"""Facts the engines emit; logs and metrics observe them. No fact holds a body, a token, or a name of a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sidecar.core.model import Answer, Endpoint


class Resolved(NamedTuple):
    """A request was answered. `subject` is a digest unless the operator wants identities in the log."""

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
    """The backend was asked once. `outcome` is replied, rejected, misconfigured, unavailable, timeout …"""

    endpoint: Endpoint
    outcome: str
    seconds: float
    status: int | None = None
    reason: str = ""
    room: str = ""
    retry: bool = False


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """A breaker opened (again) or closed."""

    endpoint: Endpoint
    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EventAccepted:
    """An event is in the outbox."""

    endpoint: Endpoint
    room: str


@dataclass(frozen=True, slots=True)
class EventDelivered:
    """The backend took an event. `lag` is the seconds since it was accepted."""

    endpoint: Endpoint
    room: str
    attempts: int
    lag: float


@dataclass(frozen=True, slots=True)
class EventParked:
    """The backend will never take this event; an operator may look at it."""

    endpoint: Endpoint
    room: str
    status: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class OutboxChanged:
    """The outbox became full and refuses events, or takes them again."""

    full: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DiskChanged:
    """A file of the state folder became unusable, or usable again."""

    file: str
    usable: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The config was read again; `problems` is empty when it was taken over."""

    problems: tuple[str, ...] = ()
    restart_only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an operator should see once: starting, stopping, a file moved aside."""

    message: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Crashed:
    """A defect of ours was caught at an edge; the request was answered all the same."""

    where: str
    error: BaseException


Fact = (
    Resolved
    | Asked
    | BreakerChanged
    | EventAccepted
    | EventDelivered
    | EventParked
    | OutboxChanged
    | DiskChanged
    | Reloaded
    | Notice
    | Crashed
)
Emit = Callable[[Fact], None]


def broadcast(*observers: Emit) -> Emit:
    """One emitter that passes each fact to every observer, in order. One that fails is left out: whoever emits a fact
    is answering a join, and a full disk under the log must not turn anybody away."""

    def emit(fact: Fact) -> None:
        for observe in observers:
            try:  # noqa: SIM105 - a context manager would take as long as an observer, several times a request
                observe(fact)
            except Exception:  # noqa: BLE001, S110
                pass

    return emit
