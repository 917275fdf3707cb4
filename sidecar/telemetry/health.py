"""Facts -> is it well, and if not, why, in words. An observer like logs and metrics; it keeps no history."""

from __future__ import annotations

from sidecar.facts import Asked, BreakerChanged, DiskChanged, Fact, OutboxChanged, Reloaded, Resolved

FAILURES_IN_A_ROW = 3
"""Calls that fail one after the other before that is a reason, though the breaker may have seen too few to open."""


class Health:
    """The reasons why the service is degraded now. It may be degraded and still answer every join rightly."""

    def __init__(self) -> None:
        """All is well until a fact says otherwise."""
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
                    f"backend: {fact.endpoint} is not asked for now ({reason}); answers come from memory and policy"
                )
            case BreakerChanged():
                self._reasons.pop(f"breaker {fact.endpoint}", None)
            case DiskChanged():
                if fact.usable:
                    self._reasons.pop(f"disk {fact.file}", None)
                else:
                    self._reasons[f"disk {fact.file}"] = f"disk: {fact.file}: {fact.reason}"
            case OutboxChanged(full=True):
                self._reasons["outbox"] = f"outbox: {fact.reason}; new ones are refused until some are delivered"
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
        """Why it is degraded; empty when all is well."""
        return list(self._reasons.values())
