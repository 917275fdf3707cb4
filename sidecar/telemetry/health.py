"""Facts -> whether the service is degraded, and the reasons in words. An observer; it keeps no history."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from sidecar.clock import Clock
from sidecar.core.durations import span
from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import (
    Asked,
    BreakerChanged,
    CacheControlSeen,
    DiskChanged,
    Fact,
    OutboxChanged,
    Reloaded,
    Resolved,
    SharedChanged,
    StrangersChanged,
)

KINDS = ("secret", "backend", "breaker", "disk", "outbox", "config", "shared")
"""Of the reasons: the label `kind` of a gauge. `secret` is the backend's distrust of us, or ours of its certificate."""

FAILURES_IN_A_ROW = 3
"""Failed calls in sequence that are a reason, even if they are not enough to open the breaker."""


REFUSALS_SHOWN_FOR = 600.0
"""Seconds for which a refusal by policy is a note."""

MOST_REFUSALS = 10_000


class Health:
    """The reasons why the service is degraded now. A degraded service still answers every join."""

    def __init__(self, clock: Clock) -> None:
        """No reason until a fact gives one."""
        self.serving = False
        self.secret_advice = ""
        """What an operator does about a wrong secret: it depends on where the secret is read from."""
        self.of_others: Callable[[], Iterable[str]] = tuple
        """More notes: about the modules of Prosody, and about other sidecars."""
        self._clock = clock
        self._failures = 0
        self._reasons: dict[tuple[str, str], str] = {}
        """By kind, and by what it is about."""
        self._forbidden: dict[Endpoint, str] = {}
        """Why the last answer of an endpoint cannot be used in an outage."""
        self._refused_at: deque[float] = deque(maxlen=MOST_REFUSALS)
        """When users were refused by policy."""
        self._rooms_refused_at: deque[float] = deque(maxlen=MOST_REFUSALS)
        """When a room was refused by policy, and with it the users who wanted to open it."""

    def observe(self, fact: Fact) -> None:  # noqa: PLR0912 - one case for each kind of fact
        """Note or clear a reason."""
        match fact:
            case Resolved():
                answer = fact.answer  # nearly all facts
                if answer is not None and answer.allowed is not True and answer.source is Source.POLICY:
                    self._refused(fact, answer)
            case Asked() | CacheControlSeen():
                self._asked(fact)
            case BreakerChanged(state="open"):
                reason = fact.reason or "too many failures"
                self._reasons["breaker", fact.endpoint] = (
                    f"backend: {fact.endpoint} is not asked for now ({reason}); cached answers and the policy are used"
                )
            case BreakerChanged():
                self._reasons.pop(("breaker", fact.endpoint), None)
            case DiskChanged(usable=True):
                self._reasons.pop(("disk", fact.file), None)
            case DiskChanged():
                self._reasons["disk", fact.file] = f"disk: {fact.file}: {fact.reason.removeprefix(f'{fact.file}: ')}"
            case SharedChanged(in_touch=True):
                self._reasons.pop(("shared", ""), None)
            case SharedChanged():
                self._reasons["shared", ""] = f"shared memory: out of touch ({fact.reason}); {_ALONE}"
            case StrangersChanged(strangers=0):
                self._reasons.pop(("shared", "strangers"), None)
            case StrangersChanged():
                self._reasons["shared", "strangers"] = f"shared memory: {fact.advice}"
            case OutboxChanged(full=True):
                self._reasons["outbox", ""] = f"outbox: {fact.reason}; new events are refused until some are delivered"
            case OutboxChanged():
                self._reasons.pop(("outbox", ""), None)
            case Reloaded(problems=()):
                self._reasons.pop(("config", ""), None)
            case Reloaded():
                self._reasons["config", ""] = f"config: the last reload was refused: {fact.problems[0]}"

    def _refused(self, fact: Resolved, answer: Answer) -> None:
        if fact.endpoint == Endpoint.VALIDATE_ACCESS:
            self._refused_at.append(self._clock.monotonic())
        elif answer.refuses_room:
            self._rooms_refused_at.append(self._clock.monotonic())

    def _asked(self, fact: Asked | CacheControlSeen) -> None:
        match fact:
            case CacheControlSeen():
                self._forbidden[fact.endpoint] = fact.forbids
            case Asked(outcome="misconfigured"):
                advice = _CERTIFICATE if fact.status is None else self.secret_advice
                self._reasons["secret", ""] = f"backend: {fact.reason}; {advice}"
            case Asked(outcome="unavailable"):
                self._failures += 1
                if self._failures >= FAILURES_IN_A_ROW:
                    self._reasons.pop(("secret", ""), None)  # another fault now; the next answer shows if it is there
                    self._reasons["backend", ""] = f"backend: the last {self._failures} calls failed ({fact.reason})"
            case Asked():
                self._failures = 0
                self._reasons.pop(("backend", ""), None)
                self._reasons.pop(("secret", ""), None)

    def reasons(self) -> list[str]:
        """Why the service is degraded; empty if it is not."""
        return list(self._reasons.values())

    def count(self, kind: str) -> int:
        """The reasons of one of the `KINDS`."""
        return sum(each == kind for each, _ in self._reasons)

    def notes(self) -> list[str]:
        """What does no harm now, but an operator should know before it does."""
        return [*self._refusals(), *self._refused_rooms(), *self._forbidding(), *self.of_others()]

    def _refusals(self) -> list[str]:
        if not (number := self._lately(self._refused_at)):
            return []
        return [
            f"joins: {f'{number} joins were' if number > 1 else '1 join was'} refused by policy in the last "
            f"{self._since(self._refused_at)}: the backend could not be asked, and nothing was cached for the user. "
            "The lines with source=policy in the log name the rooms; prosody-sidecar check --online tests the backend"
        ]

    def _refused_rooms(self) -> list[str]:
        if not (number := self._lately(self._rooms_refused_at)):
            return []
        return [
            f"rooms: {f'{number} times' if number > 1 else 'once'} in the last {self._since(self._rooms_refused_at)}, "
            "nobody could open a room: the backend gave no usable answer to room-created, and no config was cached. "
            "The lines with endpoint=room-created in the log have the reason"
        ]

    def _lately(self, refused_at: deque[float]) -> int:
        """How many of these still count; older ones are forgotten."""
        while refused_at and self._clock.monotonic() - refused_at[0] > REFUSALS_SHOWN_FOR:
            refused_at.popleft()
        return len(refused_at)

    def _since(self, refused_at: deque[float]) -> str:
        return f"{span(REFUSALS_SHOWN_FOR)}, the last one {span(self._clock.monotonic() - refused_at[-1])} ago"

    def _forbidding(self) -> list[str]:
        return [
            f"cache: the answers to {endpoint} must not be kept, says the backend (Cache-Control: {forbids}). "
            f"{_IN_AN_OUTAGE[endpoint]} {_KEEP_ANSWERS}"
            for endpoint, forbids in self._forbidden.items()
            if forbids
        ]

    def forbids_outage_use(self, endpoint: Endpoint) -> bool:
        """Whether the last answer of this endpoint cannot be used in an outage."""
        return bool(self._forbidden.get(endpoint))


_CERTIFICATE = (
    "prosody-sidecar check --online says what is wrong with the certificate. No reload is needed after the backend has "
    "another one; after a change of backend.ca_file, reload"
)

_KEEP_ANSWERS = (
    "To change this, write backend.cache_control: ignore in the config, or let the backend send these answers without "
    "this header. If it is intended, write stale_if_error: 0."
)

_ALONE = "this sidecar asks the backend more often, and does not learn what others learn"

_IN_AN_OUTAGE = {
    Endpoint.VALIDATE_ACCESS: "In an outage of the backend, no user will be let in, also no user who is known.",
    Endpoint.ROOM_CREATED: "In an outage of the backend, no room gets its own config, also no room that is known.",
}
