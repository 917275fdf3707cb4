"""What each command prints with `--json`. tools/commands.py makes the JSON Schema of these, and a test compares them
with what a real daemon answers."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, Union

from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict


class Document(TypedDict):
    """With the fields that are named here, and no others."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]


class OnlineStep(Document):
    """A step of `check --online` or `doctor`."""

    name: str
    state: Literal["ok", "unwise", "failed"]
    found: str
    advice: str


class Check(Document):
    """`check`: lines as `file:line:column: setting: text`."""

    problems: list[str]
    warnings: list[str]
    notes: list[str]
    online: NotRequired[list[OnlineStep]]


class Doctor(Document):
    """`doctor`: the steps in the order of the way of a join."""

    steps: list[OnlineStep]


class EndpointStatus(Document):
    """The guard of one endpoint of the backend."""

    breaker: Literal["closed", "open", "half-open, probe free", "half-open, probe out"]
    calls_under_way: int
    calls_waiting: int


class Reload(Document):
    """The last reload."""

    at: float
    problems: list[str]
    needs_restart: list[str]


class Recent(Document):
    """The last reload; with `--history`, lists of a number for each second too, the oldest first."""

    last_reload: Reload | None
    seconds: NotRequired[int]
    sources: NotRequired[dict[str, list[int]]]
    median_ms: NotRequired[list[float | None]]
    slow_ms: NotRequired[list[float | None]]
    backend_failures: NotRequired[list[int]]


class Counts(Document):
    """The events in the outbox."""

    pending: int
    oldest_seconds: float
    parked: int


class Module(Document):
    """A module of Prosody with a link. `timeout`: its muc_webhook_timeout, in seconds. `old_token`: it sends the second
    token of `listen.token_file`."""

    host: str
    boot: str
    version: str
    timeout: float | None
    up_seconds: float
    under_way: int
    old_token: bool


class Host(Document):
    """A MUC component that was heard since the start. `asked_seconds`: since its last question; `silent_seconds`: since
    anything was heard of it, 0 while its link is up."""

    host: str
    linked: bool
    had_link: bool
    asked_seconds: float | None
    silent_seconds: float


class Shared(Document):
    """The memory that several sidecars share; `behind` in messages."""

    in_touch: bool
    members: int
    replicas: int
    behind: int
    unsaid: int


class Status(Document):
    """`status`: times are seconds since 1970."""

    serving: bool
    reasons: list[str]
    notes: list[str]
    version: str
    uptime_seconds: float
    started_at: float
    memory_bytes: int
    loop_lag_seconds: float
    recent: Recent
    config: str
    config_read_at: float
    backend: str
    state_dir: str | None
    files_set_aside: list[str]
    modules: list[Module]
    hosts: list[Host]
    shared: Shared | None
    endpoints: dict[str, EndpointStatus]
    cache: dict[str, int]
    outbox: Counts


class Explained(Document):
    """One cached answer, or one that would be asked for."""

    endpoint: str
    room: str
    subject: str | None
    state: str
    remembered: str
    rule: str
    breaker: str
    now: str
    if_backend_failed_now: str


class Explain(Document):
    """`explain`."""

    room: str
    answers: list[Explained]
    left_out: int


class Event(Document):
    """An event in the outbox; `size` in bytes, times in seconds since 1970."""

    number: int
    endpoint: str
    room: str
    idempotency_key: str
    accepted_at: float
    size: int
    parked_at: float | None
    reason: str | None
    status: int | None
    answer: str | None


class OutboxList(Document):
    """`outbox list`."""

    counts: Counts
    parked: list[Event]
    waiting: list[Event]


class Purged(Document):
    """`purge`: how many answers are not cached any more. `pending`: the other shards have not heard of it yet."""

    purged: int
    pending: NotRequired[bool]


class Retried(Document):
    """`outbox retry`."""

    retried: int


class Dropped(Document):
    """`outbox drop`."""

    dropped: int


class Pending(Document):
    """`kick`, `end`, `refresh`: no module of Prosody has carried it out within 5 s; it is kept."""

    pending: Literal[True]


class Forgotten(Document):
    """`forget`: how many answers are asked again before they are used, or are deleted."""

    forgotten: int


class Kicked(Document):
    """`kick`: how many users are out, and joins refused."""

    kicked: int


class Ended(Document):
    """`end`."""

    ended: Literal[True]


class Refreshed(Document):
    """`refresh`: `changed` names the settings that have changed; it is absent if the room was only being made."""

    refreshed: Literal[True]
    changed: NotRequired[list[str]]


class Occupant(Document):
    """Somebody in a room. `since`: seconds since 1970; `breakoutRoom`: the JID of the breakout room."""

    nick: str
    userJid: str
    userId: NotRequired[str]
    userEmail: NotRequired[str]
    guest: bool
    role: str
    since: NotRequired[int]
    breakoutRoom: NotRequired[str]


class Who(Document):
    """`who`: who is in a room and its breakout rooms."""

    occupants: list[Occupant]


COMMANDS: dict[str, tuple[type[Document], ...]] = {
    "check": (Check,),
    "doctor": (Doctor,),
    "status": (Status,),
    "explain": (Explain,),
    "outbox list": (OutboxList,),
    "outbox retry": (Retried,),
    "outbox drop": (Dropped,),
    "purge": (Purged,),
    "forget": (Forgotten,),
    "kick": (Kicked, Pending),
    "end": (Ended, Pending),
    "refresh": (Refreshed, Pending),
    "who": (Who,),
}
"""The documents that a command may print, one at a time."""


def validate(command: str, printed: str) -> None:
    """Raises pydantic.ValidationError if the command does not print such a document."""
    kinds: Any = Union[COMMANDS[command]]  # noqa: UP007 - they are not known before it runs
    TypeAdapter(kinds).validate_json(printed)
