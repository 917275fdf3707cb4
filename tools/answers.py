"""The tables of docs/answers.md, from the code. `python -m tools.answers` writes them into the page."""

from __future__ import annotations

import re
from pathlib import Path

from sidecar.core.breaker import Permit
from sidecar.core.classify import CLASSES, Row, Shape
from sidecar.core.model import Kind
from sidecar.core.policy import Act, Fallback, Freshness, Plan, decide

PAGE = Path(__file__).parents[1] / "docs" / "answers.md"

_KINDS = {Kind.DECISION: "`validate-access`", Kind.CONFIG: "`room-created`", Kind.EVENT: "an event"}
_SHAPES = {
    Shape.ANY: "anything, or nothing",
    Shape.OBJECT: "a JSON object",
    Shape.CONFIG: "a JSON object whose [protective settings](module.md#protective-settings) can be read",
    Shape.DECISION: "a JSON object with `allowed`: `true` or `false`",
    Shape.DENIAL: "a JSON object with `allowed`: `false`",
}
_STATES = {
    Freshness.FRESH: "**fresh**",
    Freshness.REVALIDATE: "**stale**, within `stale_while_revalidate`",
    Freshness.STALE: "**stale**, within `stale_if_error`",
    Freshness.SUSPECT: "**suspect**: an allow from before a later deny in the room",
    Freshness.EXPIRED: "**expired**",
    Freshness.MISSING: "**missing**",
}
_PERMITS = {
    Permit.CLOSED: "closed: the backend works",
    Permit.PROBE_FREE: "half-open: a probe may start",
    Permit.PROBE_OUT: "half-open: a probe is under way",
    Permit.OPEN: "open: the backend is not asked",
}
_FALLBACKS = {
    Fallback.NEVER: "",
    Fallback.UNAVAILABLE: "; the cached answer if the backend is unavailable",
    Fallback.SLOW: "; the cached answer if the backend is unavailable or takes longer than `answer_within`",
}


def classes() -> str:
    """The class of a backend's answer; the first matching line counts."""
    lines = [[_kinds(row), _statuses(row), _SHAPES[row.shape], f"**{row.outcome.value}**"] for row in CLASSES]
    return _table(["asked", "status", "body", "class"], lines)


def plans() -> str:
    """What happens to a request before the backend is asked."""
    lines = [[_STATES[state], *(_plan(decide(state, permit), permit) for permit in Permit)] for state in Freshness]
    return _table(["what is cached", *(_PERMITS[permit] for permit in Permit)], lines)


def render(page: str) -> str:
    """The page with the current tables."""
    for name, table in (("classes", classes()), ("plans", plans())):
        places = list(re.finditer(f"<!-- {name} -->\n(.*?)<!-- /{name} -->\n", page, re.DOTALL))
        if len(places) != 1:
            raise ValueError(f"docs/answers.md must have one place for the table {name}, but has {len(places)}")
        page = page[: places[0].start(1)] + table + page[places[0].end(1) :]
    return page


def _kinds(row: Row) -> str:
    return ", ".join(word for kind, word in _KINDS.items() if kind in row.kinds)


def _statuses(row: Row) -> str:
    numbers = sorted(row.statuses)
    if len(numbers) == 1000:
        return "any other"
    whole = [hundred for hundred in range(0, 1000, 100) if set(range(hundred, hundred + 100)) <= row.statuses]
    single = [str(number) for number in numbers if number // 100 * 100 not in whole]
    return ", ".join([*(f"{hundred // 100}xx" for hundred in whole), *single])


def _plan(plan: Plan, permit: Permit) -> str:
    probe = permit is Permit.PROBE_FREE
    match plan.act:
        case Act.ANSWER if plan.refresh:
            return "the cached answer; the backend is asked in the background" + (", as the probe" if probe else "")
        case Act.ANSWER:
            return "the cached answer"
        case Act.ASK:
            return ("ask, as the probe" if probe else "ask") + _FALLBACKS[plan.fallback]
        case Act.AWAIT_PROBE:
            return "wait for the probe, at most 0.5 s; then as closed, or as open"
        case Act.REFUSE:
            return "`on_unavailable`"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
