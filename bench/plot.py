"""Rows -> bars, as SVG text: it needs no library, and can be read on a light and on a dark page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.sax.saxutils import escape

from bench.report import Heading, Row, number, rows_of
from bench.sample import Sample

WIDTH, LABEL, ROOM_FOR_VALUE = 880, 260, 80
BAR, GAP = 18, 6

OURS = re.compile(r"(?<!no )\bsidecar|^outbox")

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-size: 16px; font-weight: 600 }
.case { font-weight: 600 }
.bar { fill: #8c959f }
.ours { fill: #2f81f7 }
@media (prefers-color-scheme: dark) { text { fill: #adb5bd } }
"""
"""Blue is the sidecar. Without a colour scheme, both greys can be read on white and on black."""


@dataclass
class Canvas:
    """Grows downwards."""

    parts: list[str]
    y: int = 0

    def text(self, x: int, words: str, kind: str = "", anchor: str = "start") -> None:
        """One line of text, with its baseline a little above the lower edge of a bar at this height."""
        self.parts.append(
            f'<text x="{x}" y="{self.y + 14}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def bar(self, length: float, kind: str) -> None:
        """One bar that begins after its label."""
        self.parts.append(f'<rect x="{LABEL}" y="{self.y}" width="{length:.1f}" height="{BAR}" rx="2" class="{kind}"/>')


def svg(headings: Sequence[Heading], samples: Sequence[Sample]) -> str:
    """A panel for each figure that a part draws."""
    canvas = Canvas([])
    for heading in headings:
        rows = rows_of(heading, samples)
        for figure in heading.drawn:
            with_it = [row for row in rows if figure in row.cells]
            if with_it:
                better = "more" if figure.endswith("/s") else "less"
                _panel(canvas, f"{heading.title}: {figure} ({better} is better)", figure, with_it)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {canvas.y}" width="{WIDTH}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *canvas.parts, "</svg>"]) + "\n"


def _panel(canvas: Canvas, title: str, figure: str, rows: Sequence[Row]) -> None:
    canvas.y += 3 * GAP
    canvas.text(0, title, "title")
    canvas.y += BAR + 2 * GAP
    longest = max(row.cells[figure].value for row in rows) or 1.0
    for case, alike in groupby(rows, lambda row: row.case):
        canvas.text(0, case, "case")
        canvas.y += BAR + GAP
        for row in alike:
            _bar(canvas, row, figure, longest)
        canvas.y += GAP


def _bar(canvas: Canvas, row: Row, figure: str, longest: float) -> None:
    value = row.cells[figure].value
    length = value / longest * (WIDTH - LABEL - ROOM_FOR_VALUE)
    canvas.text(LABEL - 2 * GAP, row.who, anchor="end")
    canvas.bar(length, "bar ours" if OURS.search(row.who) else "bar")
    canvas.text(LABEL + round(length) + GAP, number(value))
    canvas.y += BAR + GAP
