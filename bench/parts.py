"""All parts, in the order in which they run. Each is an async generator in its own file, and fills some tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from bench import answering, bosh, checks, disk, herd, idle, instant, joins, peers, prosodys, rates, scale
from bench.curves import Chart
from bench.report import Heading
from bench.sample import Measured

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """`measure(rounds, quick, say)`; `say` is called when a measurement begins."""

    name: str
    measure: Callable[[int, bool, Say], AsyncIterator[Measured]]
    headings: Sequence[Heading]


PARTS = (
    Part("checks", checks.measure, [Heading("checks", "What was checked first", peers.PROXIES)]),
    Part(
        "answering",
        answering.measure,
        [Heading("answering", "Decisions from memory, on one core", answering.ROWS, peers.EMPTY)],
    ),
    Part(
        "joins",
        joins.measure,
        [
            Heading("joins", "Joins into real Prosody", prosodys.WAYS, prosodys.BARE),
            Heading(
                "cost",
                "A warm join while the collector of Lua is stopped",
                (*prosodys.WAYS, joins.MEMBERS),
                prosodys.FLOOR,
            ),
        ],
    ),
    Part(
        "herd",
        herd.measure,
        [Heading("herd", f"A meeting of {herd.USERS:,} begins, the backend takes 200 ms", herd.ROWS, peers.NGINX)],
    ),
    Part(
        "instant",
        instant.measure,
        [
            Heading(
                "instant",
                "Users who join at one instant",
                instant.ROWS,
                prosodys.BARE,
                "Prosody 0.12, rooms of ten, warm.",
                [Chart("joins-at-one-instant.svg", "p99 of joins in ms", "users at one instant", "p99 ms", True)],
            )
        ],
    ),
    Part("bosh", bosh.measure, [Heading("bosh", "A join over BOSH", bosh.ROWS, prosodys.BARE)]),
    Part(
        "rates",
        rates.measure,
        [
            Heading(
                "rates",
                "Decisions from memory at a fixed rate",
                rates.ROWS,
                note="A program is not in the rows of rates that it does not keep up with.",
                charts=[
                    Chart("cpu-against-rate.svg", "CPU of a decision in µs", "decisions a second", "CPU µs each"),
                    Chart("p50-against-rate.svg", "p50 of a decision in ms", "decisions a second", "p50 ms", True),
                    Chart("p99-against-rate.svg", "p99 of a decision in ms", "decisions a second", "p99 ms", True),
                ],
            )
        ],
    ),
    Part("idle", idle.measure, [Heading("idle", "Start, and while nobody asks", idle.ROWS, peers.EMPTY)]),
    Part(
        "scale",
        scale.measure,
        [
            Heading(
                "scale",
                "With more remembered",
                (peers.OURS,),
                charts=[Chart("memory-against-entries.svg", "Memory in MB", "entries", "RSS MB")],
            )
        ],
    ),
    Part(
        "disk", disk.measure, [Heading("disk", "Events, on disk before they are acknowledged", disk.ROWS, disk.ALONE)]
    ),
)
