"""All parts, in the order in which they run. Each is an async generator of samples in a file of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from bench import answering, checks, cost, disk, herd, scale
from bench.peers import DIRECT, EMPTY
from bench.report import Heading
from bench.sample import Sample

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """`measure(rounds, quick, say)`; `say` is told of every measurement that begins."""

    heading: Heading
    measure: Callable[[int, bool, Say], AsyncIterator[Sample]]


PARTS = (
    Part(Heading("checks", "What was checked first"), checks.measure),
    Part(
        Heading("answering", "Decisions from memory, on one core", EMPTY, drawn=("decisions/s", "CPU µs each")),
        answering.measure,
    ),
    Part(
        Heading("herd", f"A meeting of {herd.USERS:,} begins, the backend takes 200 ms", DIRECT, drawn=("last in s",)),
        herd.measure,
    ),
    Part(Heading("cost", "While nobody asks", EMPTY), cost.measure),
    Part(Heading("scale", "With more remembered", drawn=("p50 ms",)), scale.measure),
    Part(
        Heading("disk", "Events, on disk before they are acknowledged", disk.ALONE, drawn=("events/s",)), disk.measure
    ),
)
