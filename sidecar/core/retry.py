"""Retries of a question: when one is allowed, and how many at the most."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.model import Failure, Kind, Outcome, Unavailable


def is_retryable(kind: Kind, outcome: Outcome) -> bool:
    """Whether asking once more at once is safe and may help.

    A decision changes nothing in the backend, so it may be asked again after a refused or a reset connection. A
    `room-created` may have had an effect, so it may be sent again only if nothing of it was sent.
    """
    if not isinstance(outcome, Unavailable):
        return False
    return outcome.failure is Failure.UNSENT or (kind is Kind.DECISION and outcome.failure is Failure.RESET)


@dataclass(slots=True)
class RetryBudget:
    """A tenth as many retries as first attempts, and five more in a burst. So one lost connection refuses no user, and
    an outage does not double the calls."""

    tokens: float = 5.0

    RATIO = 0.1
    BURST = 5.0

    def first_attempt(self) -> None:
        """Count the first attempt of a question."""
        self.tokens = min(self.BURST, self.tokens + self.RATIO)

    def take(self) -> bool:
        """Whether one more retry may be sent; if so, it is counted."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True
