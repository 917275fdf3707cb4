"""What to do with a question, and what to make of the backend's answer. Pure: the resolver interprets.

freshness(entry) x breaker's permit -> PLANS -> Plan        before the backend is asked
outcome of asking                   -> settle() -> Settled  after it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import assert_never

from sidecar.core.breaker import Permit
from sidecar.core.model import (
    CacheControl,
    Endpoint,
    Entry,
    Lifetimes,
    Misconfigured,
    Outcome,
    Query,
    Rejected,
    Replied,
    Unavailable,
    Verdict,
)

JITTER = 0.1
"""At most this part of the fresh time is taken off, so that a room's entries do not fall due together."""


NEVER = -math.inf
"""The instant before all others."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of one endpoint for one room, in seconds; for a room config, `allow` holds its lifetimes."""

    deadline: float
    answer_within: float
    allow: Lifetimes
    deny: Lifetimes
    on_unavailable: OnUnavailable
    default_body: bytes | None = None
    """The operator's `default_room_config`, where `on_unavailable` is `default`."""
    matched: str | None = None
    """The room pattern this policy comes from; None: it is the endpoint's own."""

    def lifetimes(self, verdict: Verdict) -> Lifetimes:
        """The limits for an answer that says this."""
        return self.deny if verdict is Verdict.DENY else self.allow


PolicyFor = Callable[[Endpoint, str], Policy]
"""The policy of an endpoint for the room of that name."""


class OnUnavailable(Enum):
    """What to say when nothing is known and the backend cannot be asked."""

    REFUSE = "refuse"
    ALLOW = "allow"
    DEFAULT = "default"


class Freshness(StrEnum):
    """How usable a remembered answer is now."""

    FRESH = "fresh"
    REVALIDATE = "stale, within stale_while_revalidate"
    STALE = "stale, within stale_if_error"
    SUSPECT = "suspect"
    EXPIRED = "expired"
    MISSING = "missing"


def freshness(entry: Entry | None, limits: Lifetimes | None, now: float, suspect_before: float) -> Freshness:
    """Classify an entry. `limits` are those of today's policy, which shorten what was stored under another one.

    `suspect_before` is the instant of the room's last wave of suspicion: an allow asked before it may be out of date.
    NEVER: there was none.
    """
    if entry is None:
        return Freshness.MISSING
    allowed = entry.lifetimes if limits is None else entry.lifetimes.at_most(limits)
    age = now - entry.asked_at
    if age >= allowed.total:
        return Freshness.EXPIRED
    if entry.verdict is Verdict.ALLOW and entry.asked_at < suspect_before:
        return Freshness.SUSPECT
    if age < allowed.fresh * (1 - JITTER * entry.spread):
        return Freshness.FRESH
    if age < allowed.fresh + allowed.stale_while_revalidate:
        return Freshness.REVALIDATE
    return Freshness.STALE


class Act(Enum):
    """What happens to the caller."""

    ANSWER = "answer from the cache"
    ASK = "ask the backend"
    AWAIT_PROBE = "wait for the probe"
    REFUSE = "answer by on_unavailable"


class Fallback(Enum):
    """When the remembered answer may stand in for the backend's."""

    NEVER = "never"
    UNAVAILABLE = "only if the backend is unavailable"
    SLOW = "if the backend is unavailable, or takes longer than answer_within"


@dataclass(frozen=True, slots=True)
class Plan:
    """One cell of the table."""

    act: Act
    refresh: bool = False
    """Ask the backend behind the answer; where the probe is free, this is the probe."""
    fallback: Fallback = Fallback.NEVER


_ANSWER = Plan(Act.ANSWER)
_ANSWER_REFRESH = Plan(Act.ANSWER, refresh=True)
_ASK = Plan(Act.ASK)
_ASK_SLOW = Plan(Act.ASK, fallback=Fallback.SLOW)
_ASK_UNAVAILABLE = Plan(Act.ASK, fallback=Fallback.UNAVAILABLE)
_AWAIT_PROBE = Plan(Act.AWAIT_PROBE)
_REFUSE = Plan(Act.REFUSE)

_ROWS: Mapping[Freshness, tuple[Plan, Plan, Plan, Plan]] = {
    #                      closed            half-open, free   half-open, out open
    Freshness.FRESH: (_ANSWER, _ANSWER, _ANSWER, _ANSWER),
    Freshness.REVALIDATE: (_ANSWER_REFRESH, _ANSWER_REFRESH, _ANSWER, _ANSWER),
    Freshness.STALE: (_ASK_SLOW, _ANSWER_REFRESH, _ANSWER, _ANSWER),
    Freshness.SUSPECT: (_ASK_UNAVAILABLE, _ASK_UNAVAILABLE, _AWAIT_PROBE, _ANSWER),
    Freshness.EXPIRED: (_ASK, _ASK, _AWAIT_PROBE, _REFUSE),
    Freshness.MISSING: (_ASK, _ASK, _AWAIT_PROBE, _REFUSE),
}

PLANS: Mapping[tuple[Freshness, Permit], Plan] = {
    (row, permit): plan for row, plans in _ROWS.items() for permit, plan in zip(Permit, plans, strict=True)
}


def decide(state: Freshness, permit: Permit) -> Plan:
    """Look up the plan."""
    return PLANS[state, permit]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the backend's answer, once settled, says to those who asked."""

    status: int
    body: bytes
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What follows from an outcome. `reply` is None when there is nothing to go by: fall back, or refuse."""

    reply: Reply | None = None
    store: Entry | None = None
    drop: bool = False
    """Forget what was remembered under the key."""
    denied: bool = False
    """A definite deny: it goes to disk before it is answered, and the room's other allows become suspect."""
    private: bool = False
    """The answer is for one guest only."""
    outcome: Outcome | None = None


def settle(
    now: float,
    query: Query,
    asked_at: float,
    current: Entry | None,
    outcome: Outcome,
    policy: Policy,
    spread: float = 0.0,
) -> Settled:
    """Turn an outcome into an answer and a change of memory.

    `current` is what is remembered under the key now, which may be newer than the question; `spread` (0 to 1) is
    this entry's share of the expiry jitter.
    """
    match outcome:
        case Replied() | Rejected():
            if outcome.verdict is None:
                gone = outcome.status in (404, 410)  # the room is no more: its old config may not come back later
                return Settled(Reply(outcome.status, outcome.body, None), drop=gone, outcome=outcome)
            return _settle_verdict(now, query, asked_at, current, outcome, outcome.verdict, policy, spread)
        case Misconfigured() | Unavailable():
            return Settled(outcome=outcome)
        case _:
            assert_never(outcome)


def _settle_verdict(
    now: float,
    query: Query,
    asked_at: float,
    current: Entry | None,
    outcome: Replied | Rejected,
    verdict: Verdict,
    policy: Policy,
    spread: float,
) -> Settled:
    denied = verdict is Verdict.DENY
    reply = Reply(200, outcome.body, verdict)
    private = outcome.cache_control.private
    if current and not denied and current.verdict is Verdict.DENY and current.settled_at > asked_at:
        # Asked before that deny, and arrived after it: the deny is the newer word.
        return Settled(Reply(200, current.body, Verdict.DENY), private=private, outcome=outcome)
    if current and not denied and current.asked_at > asked_at:
        return Settled(reply, private=private, outcome=outcome)  # something newer is remembered already
    lifetimes = shorten(policy.lifetimes(verdict), outcome.cache_control)
    if lifetimes is not None:
        entry = Entry(verdict, outcome.body, asked_at, now, lifetimes, spread)
        return Settled(reply, store=entry, denied=denied, private=private, outcome=outcome)
    if denied:
        # Nothing of the answer may be kept but that it was a deny: an older allow must not come back.
        entry = Entry(verdict, TOMBSTONE, asked_at, now, Lifetimes(0, 0, 0))
        return Settled(reply, store=entry, denied=True, private=private, outcome=outcome)
    return Settled(reply, drop=True, private=private, outcome=outcome)


TOMBSTONE = b'{"allowed":false,"reason":null}'


def shorten(configured: Lifetimes, said: CacheControl) -> Lifetimes | None:
    """The lifetimes that are left after `Cache-Control` took its share; None: not to be stored."""
    if said.no_store:
        return None
    if said == _SILENT:
        return configured
    never = 0.0 if said.must_revalidate else None
    return Lifetimes(
        _least(configured.fresh, said.max_age),
        _least(configured.stale_while_revalidate, said.stale_while_revalidate, never),
        _least(configured.stale_if_error, said.stale_if_error, never),
    )


_SILENT = CacheControl()


def _least(limit: float, *others: float | None) -> float:
    return min([limit, *(other for other in others if other is not None)])
