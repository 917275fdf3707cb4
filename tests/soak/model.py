"""What is right: who is invited, when the meeting service is well, and what follows for an answer and for an event.

An answer is judged by what was true while its question was under way. Where that changed meanwhile, both answers are
right.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.rig.sidecar import DEADLINE, Reply

FRESH, REVALIDATE, IF_ERROR, DENY_FRESH, OPEN_FOR = 2.0, 2.0, 20.0, 1.0, 1.0
SETTINGS: dict[str, Any] = {
    "breaker": {"open_for": OPEN_FOR},
    "outbox": {"backoff_cap": 0.5, "timeout": 3.0},
    "cache": {"allows": 1_000, "denies": 500, "configs": 300},
    "log": {"level": "warning"},
    "endpoints": {
        "validate-access": {
            "allow": {"fresh": FRESH, "stale_while_revalidate": REVALIDATE, "stale_if_error": IF_ERROR},
            "deny": {"fresh": DENY_FRESH, "stale_if_error": IF_ERROR},
        }
    },
}
"""Lifetimes so short that entries of every age occur; a cache so small that it is soon full."""

LATE = 0.5
"""Seconds. As long waits a question for a slow backend if the cache has an answer."""

ALLOW_LIFE = FRESH + REVALIDATE + IF_ERROR
"""Seconds after which an allow is no answer any more, whatever happens."""

RECOVERED = DEADLINE + 1.2 * OPEN_FOR + 2.0 + 1.0
"""Seconds after a failure of the backend in which refusals are no surprise: the last calls that it let hang, an open
breaker, a Retry-After, and a busy machine."""

ROOMS = [f"room-{number}" for number in range(16)]
INVITED = [f"ann-{number}@example.com" for number in range(5)]
"""Always, to every room."""
CHANGING = [f"bob-{number}@example.com" for number in range(4)]
"""Invited, no longer invited, and invited again, to each room by itself."""
DENIED = [f"eve-{number}@example.com" for number in range(3)]

Who = tuple[str, str]
"""A room and a user."""


@dataclass(slots=True)
class Invitation:
    """Of one user to one room."""

    valid: bool
    since: float
    """When it was given or withdrawn."""
    heard: float | None = None
    """When somebody got the backend's no for the first time since."""


@dataclass
class Model:
    """Also the counts of what was seen. All instants are of `time.monotonic`."""

    invitations: dict[Who, Invitation] = field(default_factory=dict)
    failing: int = 0
    """Faults of the backend, and of this machine, that go on now."""
    failed_until: float = 0.0
    slowest_start: float = 0.0
    """Seconds."""
    counts: Counter[str] = field(default_factory=Counter)
    forbidden: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    """Events by room that the sidecar has acknowledged; their numbers are 0, 1, 2 …"""
    arrived: Counter[str] = field(default_factory=Counter)
    """Events by room that the backend has taken, without repetitions."""

    # ---- who is invited

    def is_invited(self, room: str, user: str) -> bool:
        """What the backend answers."""
        if room not in ROOMS:
            return False
        return user in INVITED or (user in CHANGING and self._invitation(room, user).valid)

    def change(self, room: str, user: str) -> None:
        """An invitation is withdrawn, or given again."""
        before = self._invitation(room, user)
        self.invitations[room, user] = Invitation(not before.valid, time.monotonic())

    def _invitation(self, room: str, user: str) -> Invitation:
        return self.invitations.setdefault((room, user), Invitation(valid=True, since=0.0))

    # ---- whether the backend is well

    def fails(self) -> None:
        """Something goes wrong from now on, until `works` is called."""
        self.failing += 1

    def works(self) -> None:
        """What went wrong is over."""
        self.failing -= 1
        self.failed_until = time.monotonic()

    def late(self) -> None:
        """This machine was busy: the backend was slow, or the sidecar was."""
        self.counts["times that this machine was late"] += 1
        self.failed_until = time.monotonic()

    def was_well(self, since: float) -> bool:
        """Whether nothing has gone wrong between `since` and now."""
        return not self.failing and self.failed_until <= since

    # ---- what is judged

    def judge(self, room: str, user: str, sent_at: float, reply: Reply) -> None:
        """One answer that has just come."""
        self.counts["joins"] += 1
        if reply.seconds > DEADLINE + LATE:  # this machine had no time for the sidecar, or for this test
            self.late()
        if reply.status != 200 or reply.allowed is None:
            self.defects.append(f"{room}, {user}: {reply}")
            return
        is_policy = "refused" in reply.cache_status
        self.counts["allowed" if reply.allowed else "refused by policy" if is_policy else "denied"] += 1
        known = user in CHANGING and room in ROOMS
        invitation = self._invitation(room, user) if known else Invitation(self.is_invited(room, user), 0.0)
        if invitation.since > sent_at:
            return
        if reply.allowed and not invitation.valid:
            self._judge_allow(f"{room}, {user}", invitation, sent_at, reply)
        elif invitation.valid and self._must_get_in(invitation, sent_at):
            self.counts["invited, while the backend was well"] += 1
            if not reply.allowed:
                self.refused.append(f"{room}, {user}: {reply}")
        elif not reply.allowed and not is_policy and not invitation.valid:
            invitation.heard = invitation.heard or time.monotonic()

    def _must_get_in(self, invitation: Invitation, sent_at: float) -> bool:
        again = bool(invitation.since)  # invited again: the last deny may still be fresh
        return self.was_well(sent_at - RECOVERED) and sent_at > invitation.since + again * (DENY_FRESH + RECOVERED)

    def _judge_allow(self, who: str, invitation: Invitation, sent_at: float, reply: Reply) -> None:
        withdrawn = sent_at - invitation.since
        if not invitation.since:
            self.forbidden.append(f"{who} was never invited: {reply}")
        elif invitation.heard is not None and sent_at > invitation.heard:
            self.forbidden.append(f"{who} was denied {sent_at - invitation.heard:.3f} s before: {reply}")
        elif withdrawn > ALLOW_LIFE + 1.0:
            self.forbidden.append(f"{who} was invited until {withdrawn:.1f} s before: {reply}")
        else:
            self.counts["allowed by a stale answer"] += 1

    def arrives(self, room: str, number: int) -> None:
        """The backend takes an event."""
        expected = self.arrived[room]
        if number < expected:
            self.counts["events repeated"] += 1
            return
        if number > expected:
            self.lost.append(f"{room}: {number} came when {expected} was due")
        self.arrived[room] = number + 1

    @property
    def problems(self) -> list[str]:
        """Whatever must not be."""
        missing = [
            f"{room}: {count} acknowledged, {self.arrived[room]} arrived"
            for room, count in self.accepted.items()
            if self.arrived[room] < count
        ]
        return [*self.forbidden, *self.refused, *self.lost, *missing, *self.defects]


def somebody(chance: random.Random) -> Who:
    """Who joins next: mostly those who are known, and some whom nobody has ever seen."""
    kind = chance.random()
    room = chance.choice(ROOMS)
    if kind < 0.35:
        return room, chance.choice(INVITED)
    if kind < 0.75:
        return room, chance.choice(CHANGING)
    if kind < 0.85:
        return room, chance.choice(DENIED)
    if kind < 0.95:
        return room, f"stranger-{chance.getrandbits(40)}@example.com"
    return f"made-up-{chance.getrandbits(40)}", chance.choice(INVITED)
