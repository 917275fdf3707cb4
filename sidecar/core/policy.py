"""What to do with a question, and what follows from the backend's answer. The resolver carries it out.

freshness of the entry, permit of the breaker -> PLANS -> Plan         before the backend is asked
outcome of the call                           -> settle() -> Settled   after it
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import NamedTuple, assert_never

from sidecar.core.breaker import Permit
from sidecar.core.decision_body import counts_more, makes_moderator, restricts
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
"""At most this part of the fresh time is taken off, so that the entries of a room do not become stale together."""


_ALLOW, _DENY = Verdict.ALLOW, Verdict.DENY
"""Python 3.11 takes as long to find a member of an enum as to call a function, and these are needed for each answer."""

NEVER = -math.inf
"""An instant before all others."""

ALWAYS = math.inf
"""An instant after all others."""


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
        return self.deny if verdict is _DENY else self.allow

    def without_denies(self) -> Policy:
        """The same where denies have not been read, or were lost: who is unknown may have been denied."""
        if self.on_unavailable is not OnUnavailable.ALLOW:
            return self
        return replace(self, on_unavailable=OnUnavailable.REFUSE)


PolicyFor = Callable[[Endpoint, str], Policy]
"""The policy of an endpoint for the room of that name."""


class OnUnavailable(Enum):
    """What to answer if nothing usable is known and the backend cannot be asked."""

    REFUSE = "refuse"
    ALLOW = "allow"
    DEFAULT = "default"


class Freshness(StrEnum):
    """How usable the entry in the cache is now."""

    FRESH = "fresh"
    REVALIDATE = "stale, within stale_while_revalidate"
    STALE = "stale, within stale_if_error"
    SUSPECT = "suspect"
    EXPIRED = "expired"
    MISSING = "missing"


_FRESH = Freshness.FRESH


def freshness(entry: Entry | None, limits: Lifetimes | None, now: float, suspect_before: float) -> Freshness:
    """Classify an entry. `limits` are those of the current policy: they shorten the lifetimes with which it was stored.

    `suspect_before`: an allow that was asked before this instant is suspect, since a later deny in its room says that
    it may be out of date. NEVER: there was no such deny. An order can make any entry suspect.
    """
    if entry is None:
        return Freshness.MISSING
    allowed = entry.lifetimes if limits is None else entry.lifetimes.at_most(limits)
    age = now - entry.asked_at
    if age >= allowed.total:
        return Freshness.EXPIRED
    if entry.suspect or (entry.verdict is _ALLOW and entry.asked_at < suspect_before):
        return Freshness.SUSPECT
    if age < allowed.fresh * (1 - JITTER * entry.spread):
        return _FRESH
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
    """When the entry in the cache may be the answer in place of the backend's."""

    NEVER = "never"
    UNAVAILABLE = "only if the backend is unavailable"
    SLOW = "if the backend is unavailable, or takes longer than answer_within"


@dataclass(frozen=True, slots=True)
class Plan:
    """One cell of the table."""

    act: Act
    refresh: bool = False
    """Ask the backend in the background; where the probe is free, this call is the probe."""
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


class Reply(NamedTuple):
    """The backend's answer, for all who wait for it."""

    status: int
    body: bytes
    verdict: Verdict | None


class Settled(NamedTuple):
    """What follows from an outcome. `reply` is None if the outcome is no usable answer: fall back, or refuse."""

    reply: Reply | None = None
    store: Entry | None = None
    drop: bool = False
    """Delete the entry of the key."""
    denied: bool = False
    """A definite deny: the other allows of the room become suspect."""
    lessens: bool = False
    """It takes away something that is remembered: a crash must not bring that back."""
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
    """Turn an outcome into a reply and a change of the cache.

    `current` is the entry of the key now, which may be newer than the question; `spread` (0 to 1) is how much of the
    jitter the new entry gets.
    """
    match outcome:
        case Replied() | Rejected():
            if outcome.verdict is None:
                gone = outcome.status in (404, 410)  # the room no longer exists: its old config must not be used again
                lessens = gone and current is not None
                return Settled(Reply(outcome.status, outcome.body, None), drop=gone, lessens=lessens, outcome=outcome)
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
    restricted = restricts(verdict, outcome.body)
    lifetimes = shorten(policy.lifetimes(verdict), outcome.cache_control)
    entry = Entry(verdict, outcome.body, asked_at, now, lifetimes or Lifetimes(0, 0, 0), spread)
    if current and not denied and counts_more(current, entry):
        return Settled(Reply(200, current.body, current.verdict), private=private, outcome=outcome)
    lessens = restricted or (current is not None and _grants_more(current, outcome))
    settled = Settled(reply, denied=denied, lessens=lessens, private=private, outcome=outcome)
    if lifetimes is not None:
        return settled._replace(store=entry)
    if restricted:
        # `no-store`: only what it keeps the user from is kept, so that an older allow cannot be used again.
        return settled._replace(store=entry._replace(body=TOMBSTONE if denied else LOBBY_TOMBSTONE))
    return settled._replace(drop=True)


TOMBSTONE = b'{"allowed":false,"reason":null}'
LOBBY_TOMBSTONE = b'{"allowed":true,"reason":null,"requireLobby":true}'


def revoked(at: float) -> Entry:
    """What an allow becomes that was taken away at this instant: no answer, but it lets nobody in."""
    return Entry(Verdict.DENY, TOMBSTONE, at, at, Lifetimes(0, 0, 0))


def _grants_more(entry: Entry, outcome: Replied | Rejected) -> bool:
    """Whether an answer that is no deny takes the entry away, or makes the user no moderator any more."""
    return outcome.cache_control.no_store or (makes_moderator(entry.body) and not makes_moderator(outcome.body))


def shorten(configured: Lifetimes, said: CacheControl) -> Lifetimes | None:
    """The lifetimes as `Cache-Control` shortens them; None: the answer must not be stored."""
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


def useless_in_an_outage(policy: Policy, said: CacheControl) -> str:
    """The directives because of which an answer that is not a deny cannot be used while the backend is away; empty if
    it can be, or if it is not needed."""
    limits = shorten(policy.allow, said)
    needed = policy.allow.stale_if_error > 0 and policy.on_unavailable is not OnUnavailable.ALLOW
    if not needed or (limits is not None and limits.stale_if_error > 0):
        return ""
    directives = {
        "no-store": said.no_store,
        "no-cache or must-revalidate": said.must_revalidate,
        "stale-if-error=0": said.stale_if_error == 0,
    }
    return ", ".join(name for name, there in directives.items() if there)


_SILENT = CacheControl()


def _least(limit: float, *others: float | None) -> float:
    return min([limit, *(other for other in others if other is not None)])
