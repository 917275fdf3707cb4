"""The clock of the engine. The end of an epoch names it, and says by how much it was set back:

run-replication-clock+milliseconds

A restart and a promoted replica keep this part. It is another clock when the engine has lost its memory.
"""

from __future__ import annotations

from typing import NamedTuple


class EngineClock(NamedTuple):
    """What an epoch says about it."""

    name: str
    set_back_ms: int
    """By how much in total; as much must be added to the age of what was kept with 0."""

    @classmethod
    def of(cls, epoch: str) -> EngineClock:
        """The clock of an epoch."""
        name, _, set_back = epoch.rpartition("-")[2].partition("+")
        return cls(name, int(set_back) if set_back.isdecimal() else 0)


class Renewal(NamedTuple):
    """The clock was set: this epoch is to end."""

    epoch: str
    set_back_ms: int
    """At least 1, also where it was set forward: then ages seem to be higher than they are, which does no harm."""


def age_ms(asked_ms: int, epoch: str, now_ms: int, now_epoch: str) -> int | None:
    """How long ago something was asked, at an instant of the same or of a later epoch; None: nobody knows."""
    then, now = EngineClock.of(epoch), EngineClock.of(now_epoch)
    if then.name != now.name or then.set_back_ms > now.set_back_ms:
        return None
    return now_ms - asked_ms + now.set_back_ms - then.set_back_ms
