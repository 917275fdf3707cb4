"""Whether this sidecar knows what the others have said: where it is in their stream, and since when.

Each message in the stream has the number after the one before it. The epoch names one unbroken history of the engine:
after a restart, a promoted replica, or a loss of its data it is another one, and numbers of two epochs say nothing
about each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from sidecar.core.engine_clock import EngineClock, Renewal
from sidecar.core.policy import NEVER

UNHEARD = 5.0
"""Seconds. If the stream was last read longer ago, the sidecar is out of touch."""

PATIENCE = 0.02
"""Seconds a question waits for the engine at the most."""

STEP = 1.0
"""Seconds by which the engine's clock may differ from what is expected of it."""


class Batch(NamedTuple):
    """One read of the stream."""

    epoch: str
    now_ms: int
    """The engine's clock: Unix milliseconds."""
    tail: int
    """The number of the last message that there was."""
    messages: tuple[tuple[int, int, bytes], ...] = ()
    """Those after the position that was asked for, oldest first, perhaps not all: the number, when it happened on the
    engine's clock, and the content."""


class Taken(NamedTuple):
    """What follows from a read."""

    messages: tuple[tuple[int, bytes], ...] = ()
    """When each happened on the engine's clock, and its content."""
    lost: str = ""
    """Why messages may have been missed; empty: none were. When what is `to_be_said_again` has been, call `joined`."""
    to_be_said_again: bool = False
    """The engine may have lost what this sidecar has said."""
    renewal: Renewal | None = None
    """The ages of what the engine remembers are other ones now: a new epoch must begin."""


@dataclass(slots=True)
class Contact:
    """The state of one sidecar. Instants are seconds of its monotonic clock."""

    epoch: str = ""
    position: int = 0
    heard_at: float = NEVER
    """Everything that was said before this instant has been read."""
    lost_before: float = NEVER
    """Messages from before this instant may have been missed."""
    lag: int = 0
    """Messages that were waiting at the last read."""
    _joining: bool = False
    _now_ms: int = 0
    _asked_at: float = NEVER
    _read_at: float = NEVER

    def take(self, batch: Batch, sent_at: float, received_at: float) -> Taken:
        """Take one read of the stream, which was asked for at `sent_at` from `position` on."""
        set_back_ms = self._set_back_ms(batch, sent_at, received_at)
        self._now_ms, self._asked_at, self._read_at = batch.now_ms, sent_at, received_at
        lost, another = self._why_lost(batch), batch.epoch != self.epoch
        if set_back_ms:
            lost = lost or "the clock of the engine was set"
        if lost:
            self.epoch, self.position, self.lag = batch.epoch, batch.tail, 0
            self.lost_before, self._joining = received_at, True
            return Taken((), lost, another, Renewal(batch.epoch, set_back_ms) if set_back_ms else None)
        messages = tuple((at_ms, content) for _, at_ms, content in batch.messages)
        if batch.messages:
            self.position = batch.messages[-1][0]
        self.lag = batch.tail - self.position
        if not self.lag and not self._joining:
            self.heard_at = sent_at
        return Taken(messages)

    def resume(self, epoch: str, position: int, now: float) -> None:
        """What was said until there was heard by an earlier process. It may not have said all that it knew."""
        self.epoch, self.position, self._joining = epoch, position, True
        self.lost_before = now

    def missed(self, now: float) -> None:
        """A message could not be read. It may have taken something away."""
        self.lost_before = now

    def joined(self) -> None:
        """What had to be said again has been said. Before the first read, nobody knows yet what that is."""
        self._joining = self._joining and self._read_at == NEVER

    def in_touch(self, now: float) -> bool:
        """Whether what the engine remembers can be used without asking the backend."""
        return not self._joining and now - self.heard_at <= UNHEARD

    def engine_ms(self, now: float) -> int | None:
        """The engine's clock at an instant, as far as it is known from the last read of this process: Unix
        milliseconds."""
        return None if self._read_at == NEVER else self._now_ms + round((now - self._read_at) * 1000)

    def suspect_before(self, now: float) -> float:
        """Allows that were asked before this instant may have been taken away without this sidecar having heard."""
        unheard = now - UNHEARD if now - self.heard_at > UNHEARD else NEVER
        return max(self.lost_before, unheard)

    def _why_lost(self, batch: Batch) -> str:
        if batch.epoch != self.epoch:
            return "another epoch of the engine" if self.epoch else "the first contact with the engine"
        numbers = [number for number, _, _ in batch.messages]
        expected = range(self.position + 1, self.position + 1 + len(numbers))
        complete = numbers == list(expected) and (numbers or batch.tail == self.position)
        return "" if complete and batch.tail >= self.position else "messages are missing in the stream"

    def _set_back_ms(self, batch: Batch, sent_at: float, received_at: float) -> int:
        """0: as much time has passed for the engine as can have passed. Else by how much its clock was set back, at
        the most; 1 if it was set forward. Then a deny would seem to be older than an allow that it takes away."""
        then, now = EngineClock.of(self.epoch), EngineClock.of(batch.epoch)
        if self._read_at == NEVER or then.name != now.name or then.set_back_ms < now.set_back_ms:
            return 0  # the first read, another clock, or somebody else has renewed the epoch
        forgotten = then.set_back_ms - now.set_back_ms  # by an engine with an old copy of its data
        passed = (batch.now_ms - self._now_ms) / 1000
        longest = received_at - self._asked_at
        if sent_at - self._read_at - STEP <= passed <= longest + STEP:
            return forgotten
        return forgotten + max(1, round((longest - passed) * 1000))


@dataclass(slots=True)
class Trust:
    """Stops the questions to an engine that fails or is slow, and tries again after a while."""

    failures: int = 0
    until: float = NEVER

    MOST: ClassVar[int] = 3
    """Failures in sequence after which it is left alone."""
    PAUSE: ClassVar[float] = 1.0
    """Seconds until the next try."""

    @property
    def is_trying(self) -> bool:
        """Whether what was just allowed is a try."""
        return self.failures >= self.MOST

    def allows(self, now: float) -> bool:
        """Whether to ask. After the pause, one question is the try."""
        if now < self.until:
            return False
        if self.failures >= self.MOST:
            self.until = now + self.PAUSE
        return True

    def good(self) -> None:
        """The engine has answered well."""
        self.failures, self.until = 0, NEVER

    def bad(self, now: float, *, forged: bool = False) -> None:
        """It has not answered in time, or with an error. `forged`: what it remembers has a wrong signature."""
        self.failures = self.MOST if forged else self.failures + 1
        if self.failures >= self.MOST:
            self.until = now + self.PAUSE
