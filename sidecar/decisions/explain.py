"""What the resolver would answer to a question now, and why, in words for an operator."""

from __future__ import annotations

from dataclasses import dataclass

from sidecar.core.breaker import Permit
from sidecar.core.decision_body import in_words, requires_lobby
from sidecar.core.durations import span
from sidecar.core.model import Key, Kind, Verdict
from sidecar.core.policy import Act, Fallback, Freshness, OnUnavailable, decide
from sidecar.decisions.view import View


@dataclass(frozen=True, slots=True)
class Explanation:
    """One key, in words; an operator can check each field against the config or the metrics."""

    endpoint: str
    room: str
    subject: str | None
    state: str
    remembered: str
    rule: str
    breaker: str
    now: str
    if_backend_failed_now: str


def explain(key: Key, view: View, now: float) -> Explanation:
    """Put one view into words."""
    return Explanation(
        endpoint=str(key.endpoint),
        room=key.room,
        subject=key.subject,
        state=view.state.value,
        remembered=_entry(view, now),
        rule=f"rooms: match {view.policy.matched}" if view.policy.matched else f"endpoints: {key.endpoint}",
        breaker=view.permit.value,
        now=_outlook(key, view, view.permit),
        if_backend_failed_now=_outlook(key, view, Permit.OPEN),
    )


def _entry(view: View, now: float) -> str:
    entry = view.entry
    if entry is None:
        return "nothing is remembered"
    limits = entry.lifetimes.at_most(view.policy.lifetimes(entry.verdict))
    age = now - entry.asked_at
    left = limits.total - age
    until = f"usable for another {span(left, 1)} at the most" if left > 0 else "too old to be used"
    said = in_words(entry.body) if entry.verdict in (Verdict.ALLOW, Verdict.DENY) else []
    says = f" ({', '.join(said)})" if said else ""
    return f"{entry.verdict.value}{says}, {span(age, 1)} old (fresh for {span(limits.fresh, 1)}), {until}"


def _outlook(key: Key, view: View, permit: Permit) -> str:
    plan = decide(view.state, permit)
    says = "" if view.entry is None else view.entry.verdict.value
    match plan.act:
        case Act.ANSWER:
            refresh = ", and asks the backend in the background" if plan.refresh else ""
            why = {
                Freshness.FRESH: "since it is fresh",
                Freshness.SUSPECT: "though a later deny or an order makes it suspect: the backend cannot be asked",
            }.get(view.state, "though it is stale, since it is within its stale limits")
            return f"answers from memory: {says}, {why}{refresh}"
        case Act.ASK:
            match plan.fallback:
                case Fallback.SLOW:
                    wait = f"{view.policy.answer_within:g} s"
                    return f"asks the backend; if it fails or takes longer than {wait}, answers from memory: {says}"
                case Fallback.UNAVAILABLE:
                    why = "since a later deny or an order makes this suspect"
                    return f"asks the backend, {why}; if it fails, answers {says}"
                case Fallback.NEVER:
                    return f"asks the backend; if it fails, {_policy(key, view)}"
        case Act.AWAIT_PROBE:
            return "waits at most half a second for the probe that is under way, and decides again"
        case Act.REFUSE:
            return f"the backend cannot be asked and nothing usable is remembered: {_policy(key, view)}"


def _policy(key: Key, view: View) -> str:
    match view.policy.on_unavailable:
        case OnUnavailable.ALLOW if view.entry is not None and view.entry.verdict is Verdict.DENY:
            return "denies, since the last answer was a deny (in spite of on_unavailable: allow)"
        case OnUnavailable.ALLOW if view.entry is not None and requires_lobby(view.entry.body):
            return "sends the user to the lobby, as the last answer did (on_unavailable: allow)"
        case OnUnavailable.ALLOW:
            return "lets the user in (on_unavailable: allow)"
        case OnUnavailable.DEFAULT:
            return "answers the default_room_config (on_unavailable: default)"
        case OnUnavailable.REFUSE:
            word = "deny" if key.endpoint.kind is Kind.DECISION else "refuse"
            return f"refuses (on_unavailable: {word})"
