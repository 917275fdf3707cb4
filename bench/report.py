"""Samples -> medians and ratios -> Markdown tables between two marks of a file; its other text is not changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.sample import Sample

BEGIN = "<!-- measured: `make bench` writes everything from here to the next such line -->"
END = "<!-- measured: end -->"

ByRound = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Heading:
    """What the report needs from a part: the baseline of the comparison, and the figures to draw."""

    part: str
    title: str
    baseline: str | None = None
    drawn: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """The median of all rounds, and the median of the ratios to the baseline within each round."""

    value: float
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """All figures of one program in one case."""

    case: str
    who: str
    cells: Mapping[str, Cell]


def rows_of(heading: Heading, samples: Iterable[Sample]) -> list[Row]:
    """Case by case, in the order of the first measurement; the baseline is first."""
    measured: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
    for part, case, who, figure, value, number in samples:
        if part == heading.part:
            figures = measured.setdefault(case, {}).setdefault(who, {})
            figures.setdefault(figure, {})[number] = value
    rows = []
    for case, everybody in measured.items():
        compared_with = everybody.get(heading.baseline or "", {})
        for who in sorted(everybody, key=lambda who: who != heading.baseline):
            others = {} if who == heading.baseline else compared_with
            cells = {name: _cell(values, others.get(name, {})) for name, values in everybody[who].items()}
            rows.append(Row(case, who, cells))
    return rows


def _cell(values: ByRound, baseline: ByRound) -> Cell:
    ratios = [value / baseline[number] for number, value in values.items() if baseline.get(number)]
    return Cell(median(values.values()), median(ratios) if ratios else None)


def markdown(headings: Sequence[Heading], samples: Sequence[Sample], machine: Mapping[str, str], rounds: int) -> str:
    """The generated text."""
    lines = [
        f"Medians of {rounds} round{'s' * (rounds > 1)}; in brackets the median of the ratios within each round.",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    for heading in headings:
        rows = rows_of(heading, samples)
        if rows:
            lines += ["", f"### {heading.title}", ""]
            lines += [f"Compared with: {heading.baseline}.", ""] if any(_compared(row) for row in rows) else []
            lines += _table(rows)
    return "\n".join(lines) + "\n"


def _compared(row: Row) -> bool:
    return any(cell.ratio is not None for cell in row.cells.values())


def _table(rows: Sequence[Row]) -> list[str]:
    figures = list(dict.fromkeys(name for row in rows for name in row.cells))
    lines = [_line("", "", *figures), _line("---", "---", *("--:" for _ in figures))]
    before = None
    for row in rows:
        cells = (shown(row.cells[name]) if name in row.cells else "" for name in figures)
        lines.append(_line("" if row.case == before else row.case, row.who, *cells))
        before = row.case
    return lines


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def shown(cell: Cell) -> str:
    """With as many digits as are significant."""
    if cell.ratio is None:
        return number(cell.value)
    return f"{number(cell.value)} ({number(cell.ratio)}×)"


def number(value: float) -> str:
    """Three digits, or all digits before the point."""
    if value == round(value) and abs(value) < 100:
        return f"{value:.0f}"
    if 0 < abs(value) < 0.005:
        return "<0.01"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def placed(text: str, generated: str) -> str:
    """The file's text with the part between the marks replaced; without marks, it is added at the end."""
    before, found, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not found:
        before, after = (text.rstrip("\n") + "\n\n") if text else "", "\n"
    return f"{before}{BEGIN}\n\n{generated.strip()}\n\n{END}{after}"
