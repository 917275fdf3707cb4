"""What is known about a question at one instant, and the plan that follows from it.

cache.get -> freshness -> decide -> View
"""

from __future__ import annotations

from typing import NamedTuple

from sidecar.core.breaker import Permit
from sidecar.core.model import Entry, Key, Kind, Verdict
from sidecar.core.policy import ALWAYS, NEVER, PLANS, Act, Freshness, Plan, Policy, freshness
from sidecar.decisions.cache import Cache


class View(NamedTuple):
    """The policy for a question, what the cache and the breaker say about it, and the plan that follows."""

    policy: Policy
    entry: Entry | None
    state: Freshness
    permit: Permit
    plan: Plan

    @property
    def answers(self) -> bool:
        """Whether the entry in the cache may be the answer now."""
        return self.plan.act is Act.ANSWER


def look(cache: Cache, key: Key, policy: Policy, now: float, permit: Permit) -> View:
    """What is known about this key now. `permit` is what the breaker lets it do; OPEN: the backend is not asked."""
    entry = cache.get(key)
    limits, suspect_before = None, NEVER
    if entry is not None:
        limits = policy.lifetimes(entry.verdict)
        if entry.verdict is Verdict.ALLOW:
            suspect_before = cache.suspect_before(key.room, now, policy.deny.fresh)
    if not cache.denies_known:
        policy, suspect_before = policy.without_denies(), ALWAYS
    elif cache.lacks_denies:
        policy = policy.without_denies()
    state = freshness(entry, limits, now, suspect_before)
    return View(policy, entry, state, permit, PLANS[state, permit])


def outdated_before(cache: Cache, key: Key, policy: Policy, now: float) -> float:
    """The instant before which a call must have started to be older than the last deny in the room; NEVER: none is."""
    if key.endpoint.kind is Kind.CONFIG:
        return NEVER
    return cache.suspect_before(key.room, now, policy.deny.fresh)
