"""The last two minutes, second by second, for `status`. An observer with a limited history."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from sidecar.clock import Clock
from sidecar.core.model import Source
from sidecar.facts import Asked, Fact, Reloaded, Resolved

SECONDS = 120
SAMPLES = 1000
"""Latencies kept of one second; more requests in that second are counted, but not measured."""

GROUPS = {
    Source.HIT: "memory",
    Source.STALE: "stale",
    Source.BACKEND: "backend",
    Source.REJECTED: "backend",
    Source.POLICY: "policy",
    Source.OUTBOX: "events",
}
"""Where answers come from, in few groups for a small graph; everything else is a problem of the request."""

NAMES = ("memory", "stale", "backend", "policy", "events", "problem")


@dataclass(slots=True)
class _Second:
    at: int
    sources: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    failures: int = 0


class Recent:
    """Counts by second, and the last reload."""

    def __init__(self, clock: Clock) -> None:
        """Nothing has happened yet."""
        self._clock = clock
        self._seconds: deque[_Second] = deque(maxlen=SECONDS)
        self._second = _Second(-1)
        self._reload: dict[str, Any] | None = None

    def observe(self, fact: Fact) -> None:
        """Count one fact."""
        match fact:
            case Resolved():
                second, answer = self._now(), fact.answer
                second.sources["problem" if answer is None else GROUPS[answer.source]] += 1
                if len(second.milliseconds) < SAMPLES:
                    second.milliseconds.append(fact.seconds * 1e3)
            case Asked(outcome="unavailable" | "misconfigured"):
                self._now().failures += 1
            case Reloaded():
                self._reload = {
                    "at": round(self._clock.wall(), 3),
                    "problems": list(fact.problems),
                    "needs_restart": list(fact.restart_only),
                }
            case _:
                pass

    def _now(self) -> _Second:
        at = int(self._clock.monotonic())
        if self._second.at != at:
            self._second = _Second(at)
            self._seconds.append(self._second)
        return self._second

    def document(self) -> dict[str, Any]:
        """Lists of one number for each second, the oldest first, without the current second."""
        now = int(self._clock.monotonic())
        by_second = {second.at: second for second in self._seconds}
        line = [by_second.get(at) for at in range(now - SECONDS, now)]
        return {
            "last_reload": self._reload,
            "seconds": SECONDS,
            "sources": {name: [0 if each is None else each.sources[name] for each in line] for name in NAMES},
            "median_ms": [_rank(each, 0.5) for each in line],
            "slow_ms": [_rank(each, 0.99) for each in line],
            "backend_failures": [0 if each is None else each.failures for each in line],
        }


def _rank(second: _Second | None, share: float) -> float | None:
    """The latency that this share of the requests did not exceed."""
    if second is None or not second.milliseconds:
        return None
    ordered = sorted(second.milliseconds)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
