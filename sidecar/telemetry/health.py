"""Facts -> whether the service is degraded, and the reasons in words. An observer; it keeps no history."""

from __future__ import annotations

from sidecar.facts import Asked, BreakerChanged, DiskChanged, Fact, OutboxChanged, Reloaded, Resolved

FAILURES_IN_A_ROW = 3
"""Failed calls in sequence that are a reason, even if they are not enough to open the breaker."""


class Health:
    """The reasons why the service is degraded now. A degraded service still answers every join."""

    def __init__(self) -> None:
        """No reason until a fact gives one."""
        self.serving = False
        self._failures = 0
        self._reasons: dict[str, str] = {}

    def observe(self, fact: Fact) -> None:
        """Note or clear a reason."""
        match fact:
            case Resolved():
                pass  # nearly all facts
            case Asked():
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

    def _asked(self, fact: Asked) -> None:
        match fact.outcome:
            case "misconfigured":
                self._reasons["backend"] = (
                    f"backend: {fact.reason}; check the webhook secret and the backend's certificate, then reload"
                )
            case "unavailable":
                self._failures += 1
                if self._failures >= FAILURES_IN_A_ROW:
                    self._reasons["backend"] = f"backend: the last {self._failures} calls failed ({fact.reason})"
            case _:
                self._failures = 0
                self._reasons.pop("backend", None)

    def reasons(self) -> list[str]:
        """Why the service is degraded; empty if it is not."""
        return list(self._reasons.values())
