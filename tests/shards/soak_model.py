"""What is right in the soak: what the backend said last about a user, who has heard a no, and who must have.

All instants are of `time.monotonic`. A *no* is a deny that a shard has answered, or an order to kick or to forget that
it has acknowledged. An allow whose question came after a no is right only if the backend has said yes since.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.rig.sidecar import DEADLINE, Reply

FRESH, REVALIDATE, IF_ERROR, DENY_FRESH, OPEN_FOR = 4.0, 2.0, 30.0, 1.0, 1.0
SETTINGS: dict[str, Any] = {
    "breaker": {"open_for": OPEN_FOR},
    "cache": {"allows": 1_000, "denies": 500, "configs": 300},
    "log": {"level": "warning"},
    "control": {"ttl": 5},
    "outbox": {"backoff_cap": 0.5, "timeout": 3.0},
    "endpoints": {
        "validate-access": {
            "allow": {"fresh": FRESH, "stale_while_revalidate": REVALIDATE, "stale_if_error": IF_ERROR},
            "deny": {"fresh": DENY_FRESH, "stale_if_error": 2 * IF_ERROR},
        }
    },
}
ALLOW_LIFE = FRESH + REVALIDATE + IF_ERROR

HEARD = 2.0
"""Seconds in which a message reaches the others while the engine is well, on a busy machine."""
OUT_OF_TOUCH = 5.0 + 2.0
"""Seconds after which a shard that is cut off asks the backend about each allow, with 2 s for a busy machine."""
RECOVERED = DEADLINE + 1.2 * OPEN_FOR + 2.0
"""Seconds after a failure of the backend in which refusals are no surprise."""

ROOMS = [f"room-{number}" for number in range(12)]
INVITED = [f"ann-{number}@example.com" for number in range(5)]
"""Always, to every room; nobody kicks them."""
CHANGING = [f"bob-{number}@example.com" for number in range(4)]
"""Invited, no longer invited, invited again, kicked, and forgotten."""

Who = tuple[str, str]
"""A room and a user."""


@dataclass(frozen=True, slots=True)
class No:
    """A no, at the shard of this number."""

    shard: int
    since: float
    """A yes of the backend that is later than this is newer."""
    known_at: float
    """When the shard had said it."""
    is_order: bool = False


@dataclass
class SoakModel:
    """Also the counts of what was seen."""

    counts: Counter[str] = field(default_factory=Counter)
    forbidden: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)
    engine_bad_since: float | None = None
    engine_well_since: float = 0.0
    backend_away: bool = False
    backend_well_since: float = 0.0
    longest: float = 0.0
    """Seconds of the longest answer while the backend was well."""
    _uninvited: set[Who] = field(default_factory=set)
    _changed_at: dict[Who, float] = field(default_factory=dict)
    _yes: dict[Who, float] = field(default_factory=dict)
    """When the backend said yes last."""
    _said_no: dict[Who, float] = field(default_factory=dict)
    """When the backend said no last."""
    _nos: dict[tuple[Who, int], No] = field(default_factory=dict)
    _allowed: dict[tuple[Who, int], float] = field(default_factory=dict)
    """When a shard let somebody in last."""

    # ---- the backend

    def answers(self, who: Who) -> bool:
        """Whether the backend lets somebody in; it is asked now."""
        invited = who[0] in ROOMS and (who[1] in INVITED or (who[1] in CHANGING and who not in self._uninvited))
        (self._yes if invited else self._said_no)[who] = time.monotonic()
        return invited

    def change(self, who: Who) -> None:
        """An invitation is withdrawn, or given again."""
        self._uninvited ^= {who}
        self._changed_at[who] = time.monotonic()
        self.counts["invitations changed"] += 1

    # ---- orders

    def ordered(self, who: Who, shard: int, sent_at: float) -> None:
        """A shard has acknowledged that somebody is kicked or forgotten."""
        self._nos[who, shard] = No(shard, sent_at, time.monotonic(), is_order=True)

    def killed(self, shard: int) -> None:
        """What a shard has not said of orders is forgotten; denies are on its disk."""
        if self.engine_bad_since is None:
            return
        for key, no in list(self._nos.items()):
            if no.shard == shard and no.is_order and key[1] == shard and no.known_at > self.engine_bad_since - HEARD:
                del self._nos[key]

    # ---- what is judged

    def judge(self, who: Who, shard: int, sent_at: float, reply: Reply) -> None:
        """One answer that has just come."""
        self.counts["joins"] += 1
        if reply.status != 200 or reply.allowed is None:
            self.defects.append(f"{who}: {reply}")
            return
        by = str(reply.document.get("decidedBy"))
        self.counts[f"{'allowed' if reply.allowed else 'refused'} by {by}"] += 1
        if self._backend_well(sent_at - RECOVERED):
            self.longest = max(self.longest, reply.seconds)
        if reply.allowed:
            self._judge_allow(who, shard, sent_at, by)
            self._allowed[who, shard] = time.monotonic()
        else:
            if by == "backend":
                self._heard_no(who, shard)
            self._judge_refusal(who, shard, sent_at, by)

    def _heard_no(self, who: Who, shard: int) -> None:
        since = self._said_no.get(who)
        known = self._nos.get((who, shard))
        if since is not None and (known is None or known.since < since):
            self._nos[who, shard] = No(shard, since, time.monotonic())

    def _judge_allow(self, who: Who, shard: int, sent_at: float, by: str) -> None:
        yes = self._yes.get(who)
        if yes is None:
            self.forbidden.append(f"{who} was never allowed, by {by}")
            return
        if sent_at - yes > ALLOW_LIFE + 1.0:
            self.forbidden.append(f"{who} was allowed {sent_at - yes:.1f} s before, by {by}")
        for (someone, _), no in self._nos.items():
            if someone != who or no.since <= yes or no.known_at >= sent_at:
                continue
            if self._must_know(no, shard, sent_at):
                ago = sent_at - no.known_at
                what = "kicked or forgotten" if no.is_order else "denied"
                self.forbidden.append(f"{who} was {what} at {no.shard} {ago:.2f} s before, allowed at {shard} by {by}")
            else:
                self.counts["allowed where a no of another shard could not be heard"] += 1

    def _must_know(self, no: No, shard: int, sent_at: float) -> bool:
        """Whether a question at this shard that was sent then must be answered with knowledge of the no."""
        if shard == no.shard:
            return True
        if self.engine_bad_since is None and sent_at - max(no.known_at, self.engine_well_since) > HEARD:
            return True
        return sent_at - no.known_at > OUT_OF_TOUCH and self._backend_well(sent_at - RECOVERED)

    def _judge_refusal(self, who: Who, shard: int, sent_at: float, by: str) -> None:
        if who[0] not in ROOMS or who[1] not in INVITED:
            return
        allowed = self._allowed.get((who, shard))
        if self._backend_well(sent_at - RECOVERED):
            self.refused.append(f"{who} is invited, and was refused at {shard} by {by} while the backend was well")
        elif allowed is not None and sent_at - allowed < 1.0 and by == "policy":
            self.refused.append(f"{who} was allowed at {shard} a second ago, and was refused by policy")

    def _backend_well(self, since: float) -> bool:
        return not self.backend_away and self.backend_well_since <= since

    @property
    def problems(self) -> list[str]:
        """Whatever must not be."""
        return [*self.forbidden, *self.refused, *self.defects]


def somebody(chance: random.Random) -> Who:
    """Who joins next."""
    kind, room = chance.random(), chance.choice(ROOMS)
    if kind < 0.35:
        return room, chance.choice(INVITED)
    if kind < 0.9:
        return room, chance.choice(CHANGING)
    return room, f"stranger-{chance.getrandbits(40)}@example.com"
