"""Facts -> whether the service is degraded, and the reasons in words. An observer; it keeps no history."""

from __future__ import annotations

from sidecar.core.model import Endpoint
from sidecar.facts import Asked, BreakerChanged, CacheControlSeen, DiskChanged, Fact, OutboxChanged, Reloaded, Resolved

FAILURES_IN_A_ROW = 3
"""Failed calls in sequence that are a reason, even if they are not enough to open the breaker."""


class Health:
    """The reasons why the service is degraded now. A degraded service still answers every join."""

    def __init__(self) -> None:
        """No reason until a fact gives one."""
        self.serving = False
        self._failures = 0
        self._reasons: dict[str, str] = {}
        self._forbidden: dict[Endpoint, str] = {}
        """Why the last answer of an endpoint cannot be used in an outage."""

    def observe(self, fact: Fact) -> None:
        """Note or clear a reason."""
        match fact:
            case Resolved():
                pass  # nearly all facts
            case Asked() | CacheControlSeen():
                self._asked(fact)
            case BreakerChanged(state="open"):
                reason = fact.reason or "too many failures"
                self._reasons[f"breaker {fact.endpoint}"] = (
                    f"backend: {fact.endpoint} is not asked for now ({reason}); cached answers and the policy are used"
                )
            case BreakerChanged():
                self._reasons.pop(f"breaker {fact.endpoint}", None)
            case DiskChanged():
                if fact.usable:
                    self._reasons.pop(f"disk {fact.file}", None)
                else:
                    self._reasons[f"disk {fact.file}"] = f"disk: {fact.file}: {fact.reason}"
            case OutboxChanged(full=True):
                self._reasons["outbox"] = f"outbox: {fact.reason}; new events are refused until some are delivered"
            case OutboxChanged():
                self._reasons.pop("outbox", None)
            case Reloaded():
                if fact.problems:
                    self._reasons["reload"] = f"config: the last reload was refused: {fact.problems[0]}"
                else:
                    self._reasons.pop("reload", None)

    def _asked(self, fact: Asked | CacheControlSeen) -> None:
        match fact:
            case CacheControlSeen():
                self._forbidden[fact.endpoint] = fact.forbids
            case Asked(outcome="misconfigured"):
                self._reasons["backend"] = (
                    f"backend: {fact.reason}; check the webhook secret and the backend's certificate, then reload"
                )
            case Asked(outcome="unavailable"):
                self._failures += 1
                if self._failures >= FAILURES_IN_A_ROW:
                    self._reasons["backend"] = f"backend: the last {self._failures} calls failed ({fact.reason})"
            case Asked():
                self._failures = 0
                self._reasons.pop("backend", None)

    def reasons(self) -> list[str]:
        """Why the service is degraded; empty if it is not."""
        return list(self._reasons.values())

    def notes(self) -> list[str]:
        """What does no harm now, but an operator should know before it does."""
        return [
            f"cache: the answers to {endpoint} must not be kept, says the backend (Cache-Control: {forbids}). "
            f"{_IN_AN_OUTAGE[endpoint]} {_KEEP_ANSWERS}"
            for endpoint, forbids in self._forbidden.items()
            if forbids
        ]

    def forbids_outage_use(self, endpoint: Endpoint) -> bool:
        """Whether the last answer of this endpoint cannot be used in an outage."""
        return bool(self._forbidden.get(endpoint))


_KEEP_ANSWERS = (
    "To change this, write backend.cache_control: ignore in the config, or let the backend send these answers without "
    "this header. If it is intended, write stale_if_error: 0."
)

_IN_AN_OUTAGE = {
    Endpoint.VALIDATE_ACCESS: "In an outage of the backend, no user will be let in, also no user who is known.",
    Endpoint.ROOM_CREATED: "In an outage of the backend, no room gets its own config, also no room that is known.",
}
