"""The shards that may have rooms: which sidecars there are, and who they are.

A shard that is away may come back with its rooms, so its name is remembered for a while. The engine does that, and each
sidecar too, because the engine can lose its memory. Time in which the engine was not heard does not count: then all
shards are away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from sidecar.core.policy import NEVER

HERE = 10.0
"""Seconds for which a sidecar that was heard of is there; as in the script of the engine."""

AWAY = 300.0
"""Seconds for which it may come back with its rooms; as in the script of the engine."""

ALONE = 2.5
"""Seconds after which another sidecar with the name of this shard would have been seen: each shows itself once a
second."""

READ_EVERY = 30.0
"""Seconds between two reads of all names, while nothing happens."""


class Process(NamedTuple):
    """One process of a sidecar, as the others know it."""

    started_ms: int
    """Unix milliseconds, on its own clock."""
    member: str
    """A random name."""
    fingerprint: str
    """The same for all that can read each other's messages."""

    @property
    def text(self) -> str:
        """As it is kept in the engine."""
        return " ".join(map(str, self))

    @classmethod
    def of(cls, text: str) -> Process | None:
        """The process of a text; None: it is none."""
        words = text.split(" ")
        if len(words) != len(cls._fields) or not words[0].isdecimal():
            return None
        return cls(int(words[0]), words[1], words[2])


class Member(NamedTuple):
    """One shard, as the engine knows it."""

    shard: str
    age: float
    """Seconds since its sidecar was heard of."""
    process: Process | None


@dataclass(slots=True)
class Members:
    """What one process knows about the members. Instants are seconds of its monotonic clock."""

    own: Process
    strangers: int = 0
    """Sidecars that are there, and whose messages cannot be read here, nor ours there."""
    _epoch: str = ""
    _seen: dict[str, float] = field(default_factory=dict)
    """By shard: when it was heard of, in seconds for which the engine had been heard."""
    _unheard: float = 0.0
    """The instant of the last beat, less those seconds."""
    _beat_at: float = NEVER
    _read_at: float = NEVER
    _number: int = 0
    _read_number: int = 0
    """The number at the last read of all names."""
    _namesake: str = ""
    _shared_name_at: float = NEVER
    """When another process was last seen under the name of this shard."""

    def beat(self, epoch: str, number: int, now: float) -> bool:
        """This sidecar has shown itself to the engine, which knows so many that are there. Returns whether to read all
        names."""
        if now - self._beat_at > HERE:
            self._unheard = now - self._heard()
            self._epoch = ""
        self._beat_at = now
        self._number = number
        return number != self._read_number or epoch != self._epoch or now - self._read_at >= READ_EVERY

    def missing(self, known: Iterable[Member]) -> dict[str, float]:
        """The shards that the engine does not know any more, and for how long each was away: they may come back with
        their rooms."""
        gone = self._seen.keys() - {member.shard for member in known}
        ages = {shard: max(HERE, self._heard() - self._seen[shard]) for shard in gone}
        return {shard: age for shard, age in ages.items() if age < AWAY}

    def take(self, epoch: str, known: Iterable[Member], now: float) -> None:
        """All that may have rooms, as this epoch of the engine knows them."""
        members = list(known)
        self._epoch, self._read_at, self._read_number = epoch, now, self._number
        self._seen = {member.shard: self._heard() - member.age for member in members}
        there = [member.process for member in members if member.age < HERE and member.process is not None]
        self.strangers = sum(process.fingerprint != self.own.fingerprint for process in there)

    @property
    def shards(self) -> frozenset[str]:
        """All that may have rooms."""
        return frozenset(self._seen)

    def recall(self, shards: Iterable[str]) -> None:
        """An earlier process knew of these; they may have been away since."""
        for shard in shards:
            self._seen.setdefault(shard, self._heard() - HERE)
        self._epoch = ""

    def complete_in(self, now: float) -> str:
        """The epoch of the engine that knows all shards that may have rooms; empty: nobody can say. Nor can a sidecar
        whose name another one may have: that one may have rooms too."""
        return self._epoch if now - self._beat_at <= HERE and now - self._shared_name_at >= ALONE else ""

    def has_older_namesake(self, before: Process | None, now: float) -> bool:
        """Whether an older process has the name of this shard too. `before`: who has shown itself under this name
        before. Once may be a message that was on its way for long; so it has to be seen twice."""
        if before is None or before.member == self.own.member:
            return False
        self._shared_name_at = now
        if self._beat_at == NEVER:
            return False
        twice, self._namesake = before.member == self._namesake, before.member
        return twice and before < self.own

    def _heard(self) -> float:
        """For how long the engine has been heard."""
        return 0.0 if self._beat_at == NEVER else self._beat_at - self._unheard
