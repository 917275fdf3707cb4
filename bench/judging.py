"""Whether the figures are what they should be: judged by the worst case in which a goal counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from bench.sample import Sample

ByRound = dict[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    at_most: float = float("inf")
    at_least: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Goal(_Bound):
    """A bound for `figure` of `who` in the cases that contain `case`: for the figure itself, or for its ratio to that
    of another program (`to`) or of another case (`to_case`) in the same round."""

    table: str
    who: str
    figure: str
    case: str = ""
    to: str | None = None
    to_case: str | None = None

    @property
    def is_ratio(self) -> bool:
        """Whether it is a bound for a ratio."""
        return self.to is not None or self.to_case is not None

    def __str__(self) -> str:
        """In words."""
        case = f", {self.case.strip(', ')}" if self.case else ""
        other = self.to or self.to_case
        compared = f", compared with {other}" if other else ""
        bound = f"at most {self.at_most:g}" if self.at_most < float("inf") else f"at least {self.at_least:g}"
        return f"{self.who}: {self.figure}{case}{compared}: {bound}{'×' if other else ''}"


def by_case(goal: Goal, samples: Iterable[Sample]) -> dict[str, float]:
    """The figures that the goal is about: medians of all rounds."""
    values: dict[tuple[str, str], ByRound] = {}
    for table, case, who, figure, value, number in samples:
        if (table, figure) == (goal.table, goal.figure):
            values.setdefault((case, who), {})[number] = value
    found = {}
    for (case, who), rounds in values.items():
        if who == goal.who and goal.case in case and case != goal.to_case:
            others = values.get((goal.to_case or case, goal.to or who), {})
            figures = _ratios(rounds, others) if goal.is_ratio else list(rounds.values())
            if figures:
                found[case] = median(figures)
    return found


def _ratios(rounds: ByRound, others: ByRound) -> list[float]:
    return [value / others[number] for number, value in rounds.items() if others.get(number)]


def judged(goals: Sequence[Goal], samples: Sequence[Sample]) -> Iterator[tuple[str, str, str]]:
    """Each goal, the worst case, and whether the goal is reached."""
    for goal in goals:
        cases = by_case(goal, samples)
        if not cases:
            yield str(goal), "", "not measured"
            continue
        worst = (max if goal.at_most < float("inf") else min)(cases, key=lambda case: cases[case])
        value = cases[worst]
        shown = f"{value:.3g}{'×' if goal.is_ratio else ''}" + (f" ({worst})" if len(cases) > 1 else "")
        yield str(goal), shown, "yes" if goal.at_least <= value <= goal.at_most else "no"
