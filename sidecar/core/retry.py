"""When to ask again, after how long, and how often at the most."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.model import Failure, Kind, Outcome, Unavailable


def is_retryable(kind: Kind, outcome: Outcome) -> bool:
    """Whether asking once more at once is safe and may help.

    A decision changes nothing at the backend, so a refused or reset connection is worth another try; a
    `room-created` may have been acted upon, so only when nothing was sent.
    """
    if not isinstance(outcome, Unavailable):
        return False
    return outcome.failure is Failure.UNSENT or (kind is Kind.DECISION and outcome.failure is Failure.RESET)


def next_delay(attempt: int, jitter: float, *, base: float, cap: float) -> float:
    """Seconds before attempt number `attempt` + 1: doubling from `base` up to `cap`, of which `jitter` (0 to 1)
    takes off up to a half so that many who failed together do not come back together."""
    ceiling = min(cap, base * 2.0 ** min(attempt - 1, 32))
    return ceiling * (1 - jitter / 2)


@dataclass(slots=True)
class RetryBudget:
    """A tenth of the first attempts plus a burst of five: one lost connection refuses nobody, an outage is not
    doubled."""

    tokens: float = 5.0

    RATIO = 0.1
    BURST = 5.0

    def first_attempt(self) -> None:
        """Count a question that was sent for the first time."""
        self.tokens = min(self.BURST, self.tokens + self.RATIO)

    def take(self) -> bool:
        """Whether one more retry may be sent; if so it is paid for."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
