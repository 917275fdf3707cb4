"""Points -> a line chart, as SVG text: it needs no library, and can be read on a light and on a dark page.

The axis to the right is logarithmic, since load and size grow by factors here. Its marks are the measured values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

Line = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 880, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 44, 56
COLOURS = ("#2f81f7", "#a371f7", "#d4772c", "#3fa66b", "#c94f6d", "#8c959f")
LABEL_HEIGHT = 16
MARK_WIDTH = 46
"""The least distance between two marks of the axis to the right, in pixels."""

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-size: 16px; font-weight: 600 }
.grid { stroke: #8c959f; stroke-opacity: 0.3 }
.line { fill: none; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #adb5bd } }
"""


@dataclass(frozen=True, slots=True)
class Chart:
    """`figure` of each program, against the number with which a case begins ("1,000 entries"). `x` says what this
    number is."""

    file: str
    title: str
    x: str
    figure: str
    logarithmic: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to pixels. A linear axis begins at zero."""

    smallest: float
    largest: float
    begins: float
    ends: float
    logarithmic: bool

    def at(self, value: float) -> float:
        """Where this value is."""
        if not self.logarithmic:
            share = value / self.largest
        elif self.largest == self.smallest:
            share = 0.5
        else:
            share = math.log(value / self.smallest) / math.log(self.largest / self.smallest)
        return self.begins + share * (self.ends - self.begins)


def svg(chart: Chart, lines: Mapping[str, Line]) -> str:
    """The chart; a line must have a point, and all values must be above zero where an axis is logarithmic."""
    places = sorted({x for line in lines.values() for x, _ in line})
    values = [y for line in lines.values() for _, y in line]
    marks = ticks(min(values), max(values), logarithmic=chart.logarithmic)
    across = Axis(places[0], places[-1], LEFT + 12, WIDTH - RIGHT - 12, logarithmic=True)
    up = Axis(marks[0], marks[-1], HEIGHT - BOTTOM, TOP, chart.logarithmic)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img">',
        f"<style>{STYLE}</style>",
        _text(0, 18, chart.title, "start", "title"),
        *_grid(up, marks),
        *_marks(across, places),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, chart.x, "middle"),
    ]
    ends = {who: up.at(line[-1][1]) for who, line in lines.items()}
    labels = apart(ends, LABEL_HEIGHT)
    for colour, (who, line) in zip(COLOURS * len(lines), lines.items(), strict=False):
        parts += _line([(across.at(x), up.at(y)) for x, y in line], colour)
        parts.append(_text(WIDTH - RIGHT + 8, labels[who] + 4, who, "start", colour=colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def ticks(smallest: float, largest: float, *, logarithmic: bool) -> list[float]:
    """Round values from below the smallest value (from zero on a linear axis) to above the largest one."""
    if logarithmic:
        powers = range(math.floor(math.log10(smallest)), math.ceil(math.log10(largest)) + 1)
        candidates = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        first = max(each for each in candidates if each <= smallest)
        last = next((each for each in candidates if each >= largest), candidates[-1])
        return [each for each in candidates if first <= each <= last]
    step = next(each for each in _steps(largest) if each * 5 >= largest)
    return [step * number for number in range(max(1, math.ceil(largest / step - 1e-9)) + 1)]


def apart(wanted: Mapping[str, float], distance: float) -> dict[str, float]:
    """The same places, in the same order, moved down so far that no two are closer than this."""
    found: dict[str, float] = {}
    free_from = -math.inf
    for name in sorted(wanted, key=lambda name: wanted[name]):
        found[name] = max(wanted[name], free_from)
        free_from = found[name] + distance
    return found


def shown(value: float) -> str:
    """A mark of an axis."""
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:g}"


def _steps(largest: float) -> Iterable[float]:
    power = math.floor(math.log10(largest)) - 1 if largest > 0 else 0
    return (factor * 10.0**exponent for exponent in (power, power + 1, power + 2) for factor in (1, 2, 5))


def _grid(up: Axis, marks: Sequence[float]) -> Iterable[str]:
    for mark in marks:
        y = up.at(mark)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 8, y + 4, shown(mark), "end")


def _marks(across: Axis, places: Sequence[float]) -> Iterable[str]:
    """As many as can be read."""
    free_from = -math.inf
    for place in places:
        x = across.at(place)
        if x >= free_from:
            yield _text(x, HEIGHT - BOTTOM + 20, shown(place), "middle")
            free_from = x + MARK_WIDTH


def _line(points: Sequence[tuple[float, float]], colour: str) -> Iterable[str]:
    yield f'<path class="line" stroke="{colour}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in points)}"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str, kind: str = "", colour: str = "") -> str:
    look = (f' class="{kind}"' if kind else "") + (f' style="fill: {colour}"' if colour else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>{escape(words)}</text>'
