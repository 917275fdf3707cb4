"""Runs -> medians, ratios and spreads -> Markdown between two marks of a file; its other text is not changed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from bench.curves import Chart, svg
from bench.judging import Goal, judged
from bench.results import Run
from bench.sample import Sample

BEGIN = "<!-- measured: `make bench` writes everything from here to the next such line -->"
END = "<!-- measured: end -->"

NOISY = 0.25
"""A figure whose rounds differ by more than this share of it is marked."""

LEGEND = f"""\
Each figure is the median of its rounds; in brackets the median of the ratios within each round. The rounds take the
programs in turn. *rounds differ by* is the distance between the lowest and the highest round of the row's first figure
(of its ratio, where there is one), as a share of the median. `~` marks each figure whose rounds differ by more than
{NOISY:.0%}: do not rely on it."""

ByRound = Mapping[int, float]


@dataclass(frozen=True, slots=True)
class Heading:
    """What the report needs of a table: its programs in their order, with which of them they are compared, what has to
    be said about it, and its charts. Rows of other programs are left out."""

    table: str
    title: str
    rows: Sequence[str]
    baseline: str | None = None
    note: str = ""
    charts: Sequence[Chart] = ()


@dataclass(frozen=True, slots=True)
class Cell:
    """The median of all rounds, the median of the ratios to the baseline within each round, and how much the rounds
    differ (of one round: None)."""

    value: float
    ratio: float | None = None
    spread: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """All figures of one program in one case."""

    case: str
    who: str
    cells: Mapping[str, Cell]


def rows_of(heading: Heading, samples: Iterable[Sample]) -> list[Row]:
    """Case by case in the order of the first measurement, and the programs in the order of the heading."""
    measured: dict[str, dict[str, dict[str, dict[int, float]]]] = {}
    for table, case, who, figure, value, number in samples:
        if table == heading.table and who in heading.rows:
            figures = measured.setdefault(case, {}).setdefault(who, {})
            figures.setdefault(figure, {})[number] = value
    rows = []
    for case, everybody in measured.items():
        compared_with = everybody.get(heading.baseline or "", {})
        for who in (each for each in heading.rows if each in everybody):
            others = {} if who == heading.baseline else compared_with
            cells = {name: _cell(values, others.get(name, {})) for name, values in everybody[who].items()}
            rows.append(Row(case, who, cells))
    return rows


def _cell(values: ByRound, baseline: ByRound) -> Cell:
    ratios = [value / baseline[number] for number, value in values.items() if baseline.get(number)]
    return Cell(median(values.values()), median(ratios) if ratios else None, spread_of(ratios or list(values.values())))


def spread_of(rounds: Sequence[float]) -> float | None:
    """The distance between the lowest and the highest round, as a share of the median."""
    if len(rounds) < 2:
        return None
    distance, middle = max(rounds) - min(rounds), abs(median(rounds))
    if middle:
        return distance / middle
    return math.inf if distance else 0.0


def markdown(parts: Mapping[str, Sequence[Heading]], runs: Mapping[str, Run], goals: Sequence[Goal] = ()) -> str:
    """The generated text."""
    lines = [LEGEND, ""]
    latest = max(runs.values(), key=lambda run: run.when, default=None)
    machine = latest.machine if latest is not None else {}
    lines += [f"- {name}: {value}" for name, value in machine.items()]
    samples = [sample for run in runs.values() for sample in run.samples]
    if goals:
        lines += ["", "### Goals", "", _line("goal", "measured, worst case", "reached"), _line("---", "--:", "---")]
        lines += [_line(*each) for each in judged(goals, samples)]
    for name, headings in parts.items():
        for heading in headings:
            if name in runs:
                lines += _section(heading, runs[name], machine)
    return "\n".join(lines) + "\n"


def _section(heading: Heading, run: Run, machine: Mapping[str, str]) -> list[str]:
    rows = rows_of(heading, run.samples)
    failures = [each for each in run.failures if each.table == heading.table]
    if not rows and not failures:
        return []
    lines = ["", f"### {heading.title}", "", _about(heading, run, machine), ""]
    if rows:
        lines += [*_table(rows), ""]
    for who, alike in groupby(sorted(failures), lambda each: each.who):
        why = next(alike).why.strip().replace("\n", " ")
        lines += [f"- **{who} is not in this table or not in all of its rounds**: {why[:400]}", ""]
    for chart in heading.charts:
        lines += [f"![{chart.title}]({chart.file})", ""] if lines_of(chart, rows) else []
    return lines[:-1]


def _about(heading: Heading, run: Run, machine: Mapping[str, str]) -> str:
    rounds = f"{run.rounds} round{'s' * (run.rounds > 1)}"
    compared = [f"Compared with: {heading.baseline}."] if heading.baseline else []
    measured = f"{run.when}, {rounds}, load {run.load_before:.2f} before and {run.load_after:.2f} after."
    other = [f"{name}: {value}" for name, value in run.machine.items() if machine.get(name) != value]
    elsewhere = [f"Other than above: {'; '.join(other)}."] if other else []
    return " ".join([*([heading.note] if heading.note else []), *compared, measured, *elsewhere])


def lines_of(chart: Chart, rows: Iterable[Row]) -> dict[str, list[tuple[float, float]]]:
    """The points of each program. A case of a chart begins with a number."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if chart.figure in row.cells:
            x = float(row.case.split()[0].replace(",", ""))
            lines.setdefault(row.who, []).append((x, row.cells[chart.figure].value))
    return {who: sorted(line) for who, line in lines.items()}


def drawings(parts: Mapping[str, Sequence[Heading]], runs: Mapping[str, Run]) -> dict[str, str]:
    """The files of all charts that have a point, with their content."""
    files = {}
    for name, headings in parts.items():
        for heading in headings:
            rows = rows_of(heading, runs[name].samples) if name in runs else []
            for chart in heading.charts:
                if lines := lines_of(chart, rows):
                    files[chart.file] = svg(chart, lines)
    return files


def _table(rows: Sequence[Row]) -> list[str]:
    figures = list(dict.fromkeys(name for row in rows for name in row.cells))
    noise = [next(iter(row.cells.values())).spread for row in rows]
    last = ["rounds differ by"] if any(each is not None for each in noise) else []
    lines = [_line("", "", *figures, *last), _line("---", "---", *("--:" for _ in [*figures, *last]))]
    before = None
    for row, spread in zip(rows, noise, strict=True):
        cells = [shown(row.cells[name]) if name in row.cells else "" for name in figures]
        cells += ["" if spread is None else _share(spread)] if last else []
        lines.append(_line("" if row.case == before else row.case, row.who, *cells))
        before = row.case
    return lines


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _share(spread: float) -> str:
    return "all of it" if math.isinf(spread) else f"{spread:.0%}"


def shown(cell: Cell) -> str:
    """With as many digits as are significant, and a mark if the rounds do not agree."""
    text = number(cell.value) if cell.ratio is None else f"{number(cell.value)} ({number(cell.ratio)}×)"
    return f"{text} ~" if cell.spread is not None and cell.spread > NOISY else text


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
