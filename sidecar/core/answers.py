"""The answer that Prosody gets: from the cache, from the backend, or from the policy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sidecar.core.decision_body import aged, configuration_in, requires_lobby, stamped
from sidecar.core.model import Answer, Entry, Kind, Outcome, Query, Source, Verdict
from sidecar.core.policy import LOBBY_TOMBSTONE, Freshness, OnUnavailable, Policy, Reply, Settled

UNREACHABLE = b'{"allowed":false,"reason":"The meeting service cannot be reached. Please try again in a moment."}'
ALLOWED_BY_POLICY = b'{"allowed":true,"reason":null}'

_SOURCES: Mapping[Freshness, tuple[Source, str | None]] = {
    Freshness.FRESH: (Source.HIT, None),
    Freshness.REVALIDATE: (Source.STALE, "stale-while-revalidate"),
    Freshness.STALE: (Source.STALE, "stale-if-error"),
    Freshness.SUSPECT: (Source.STALE, "suspect"),
    Freshness.EXPIRED: (Source.STALE, None),
}
"""What an answer from the cache is, and why it may be one."""

_ALLOWED: Mapping[Verdict | None, bool | None] = {Verdict.ALLOW: True, Verdict.DENY: False, Verdict.PRIVATE: False}
"""Neither for a room config."""


def remembered(entry: Entry, state: Freshness, policy: Policy, now: float) -> Answer:
    """The answer is an entry of the cache."""
    verdict, body, asked_at, _, lifetimes, _ = entry
    age = now - asked_at
    fresh = lifetimes.at_most(policy.lifetimes(verdict)).fresh
    allowed, (source, detail) = _ALLOWED.get(verdict), _SOURCES[state]
    body = aged(body, age) if allowed else body
    return Answer(200, body, source, allowed, math.floor(fresh - age), detail=detail)


def replied(reply: Reply, settled: Settled, before: Freshness, *, collapsed: bool) -> Answer:
    """The answer is the backend's. `before` is how usable the entry in the cache was when the backend was asked."""
    rejected = reply.verdict is None
    return Answer(
        status=reply.status,
        body=reply.body,
        source=Source.REJECTED if rejected else Source.BACKEND,
        allowed=_ALLOWED.get(reply.verdict),
        forwarded=_reason(before),
        forward_status=_status(settled.outcome) if rejected else None,
        stored=settled.store is not None,
        collapsed=collapsed,
    )


def unavailable(
    query: Query,
    entry: Entry | None,
    policy: Policy,
    *,
    asked: Settled | None = None,
    before: Freshness = Freshness.MISSING,
    retry_after: float = 1.0,
) -> Answer:
    """The answer follows from the policy, since nothing usable is known.

    `entry` may be an expired deny: it is no answer any more, but it keeps a policy of `allow` from letting the user in.
    An expired allow that required the lobby keeps it from letting the user past the lobby.
    `asked` is what followed from asking the backend; None: it was not asked. `retry_after` is in seconds.
    """
    forwarded = None if asked is None else _reason(before)
    status = None if asked is None else _status(asked.outcome)
    denied_last = entry is not None and entry.verdict is Verdict.DENY
    if policy.on_unavailable is OnUnavailable.DEFAULT and policy.default_body is not None:
        return Answer(200, policy.default_body, Source.POLICY, None, None, forwarded, status, detail="default")
    if policy.on_unavailable is OnUnavailable.ALLOW and not denied_last:
        body = LOBBY_TOMBSTONE if entry is not None and requires_lobby(entry.body) else ALLOWED_BY_POLICY
        return Answer(200, body, Source.POLICY, True, None, forwarded, status, detail="allowed-by-policy")
    decision = query.key.endpoint.kind is Kind.DECISION
    return Answer(
        status=200 if decision else 503,
        body=UNREACHABLE if decision else b"",
        source=Source.POLICY,
        allowed=False if decision else None,
        forwarded=forwarded,
        forward_status=status,
        detail="refused",
        retry_after=max(1, math.ceil(retry_after)),
    )


DECIDED_BY: Mapping[Source, str] = {
    Source.BACKEND: "backend",
    Source.REJECTED: "backend",
    Source.HIT: "memory",
    Source.STALE: "memory",
    Source.POLICY: "policy",
}
"""Who decided, for each source of a decision."""


def decision_id_of(trace: str) -> str:
    """The id of a decision: the trace id of the question, by which the backend can find it too."""
    return trace[3:35]


def with_decision(answer: Answer, trace: str) -> Answer:
    """The answer to a decision, with who decided and with its id."""
    status, body, source, *others = answer
    return Answer._make((status, stamped(body, DECIDED_BY[source], decision_id_of(trace)), source, *others))


def config_along(decision: Answer) -> Answer | None:
    """The room config that the backend has just sent along with a decision; None: it has sent none."""
    configuration = configuration_in(decision.body) if decision.source is Source.BACKEND else None
    if configuration is None:
        return None
    return decision._replace(status=200, body=configuration, allowed=None)


def _reason(state: Freshness) -> str:
    """RFC 9211's word for why a question went to the backend."""
    return "miss" if state is Freshness.MISSING else "stale"


def _status(outcome: Outcome | None) -> int | None:
    return None if outcome is None else outcome.status
