"""`make faults`: what users get while the backend fails in each way it can, as a table.

Known users were answered once before the fault and their answers have gone stale; strangers were never seen.
Right: known ones get what the backend said, and a stranger never gets into a cancelled meeting. Definite: a
stranger gets a yes or a no within the deadline.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from itertools import count

from rich.console import Console
from rich.table import Table

from tests.rig.pair import Asked, Pair

FAULTS = ("none", "500", "garbage", "reset", "slow", "hang", "killed")
FRESH = 0.2
DEADLINE = 1.5
SLOW = 0.8
GRACE = 0.25
"""Seconds on top of the deadline for two busy processes on one small machine."""

ROOMS = 12
AT_ONCE = 8
LIFETIMES = {"fresh": FRESH, "stale_while_revalidate": 0}
SETTINGS = {
    "endpoints": {
        "validate-access": {
            "deadline": DEADLINE,
            "answer_within": 0.2,
            "allow": LIFETIMES,
            "deny": LIFETIMES,
        }
    }
}

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Share:
    """How many were as they should be, and how long it took them, in seconds."""

    good: int
    all: int
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Row:
    fault: str
    known: Share
    strangers: Share

    @property
    def held(self) -> bool:
        return self.known.good == self.known.all and self.strangers.good == self.strangers.all


def doors() -> list[tuple[str, bool]]:
    """Rooms, and whether one is let in."""
    return [(f"open-{n}", True) for n in range(ROOMS)] + [(f"cancelled-{n}", False) for n in range(ROOMS)]


def share(results: list[tuple[Asked, bool]]) -> Share:
    times = sorted(asked.seconds for asked, _ in results)
    good = sum(is_good for _, is_good in results)
    return Share(good, len(results), times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)])


async def in_turn(questions: Iterable[Callable[[], Awaitable[tuple[Asked, bool]]]]) -> Share:
    """Asks all of them, a few at once."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(question: Callable[[], Awaitable[tuple[Asked, bool]]]) -> tuple[Asked, bool]:
        async with slots:
            return await question()

    return share(list(await asyncio.gather(*(one(question) for question in questions))))


async def measure(fault: str, rounds: int) -> Row:
    """One fault, on a backend and a sidecar of its own."""
    async with Pair.start(SETTINGS) as pair:

        async def known(room: str, let_in: bool) -> tuple[Asked, bool]:
            asked = await pair.ask(room, "known@example.com")
            return asked, asked.allowed is let_in and asked.seconds < DEADLINE + GRACE

        async def stranger(room: str, let_in: bool) -> tuple[Asked, bool]:
            asked = await pair.ask(room, f"stranger-{next(_numbers)}@example.com")
            definite = asked.allowed is not None and (let_in or asked.allowed is False)
            return asked, definite and asked.seconds < DEADLINE + GRACE

        for room, let_in in doors():
            assert (await known(room, let_in))[1], "with a backend that is well, all should be right"
        await asyncio.sleep(2 * FRESH)
        if fault == "killed":
            await pair.kill_backend()
        else:
            await pair.fault(fault, delay=SLOW)

        def each(who: Callable[[str, bool], Awaitable[tuple[Asked, bool]]]) -> Awaitable[Share]:
            return in_turn(
                lambda room=room, let_in=let_in: who(room, let_in)  # type: ignore[misc]
                for _ in range(rounds)
                for room, let_in in doors()
            )

        row = Row(fault, await each(known), await each(stranger))
        if fault != "killed":
            await pair.fault("none")
        return row


def as_table(rows: list[Row]) -> Table:
    table = Table(title="What users get while the backend fails", title_justify="left")
    table.add_column("the backend")
    for who, what in (("known", "right"), ("strangers", "definite")):
        table.add_column(f"{who}: {what}", justify="right")
        table.add_column("p50", justify="right")
        table.add_column("p99", justify="right")
    for row in rows:
        cells = [row.fault]
        for part in (row.known, row.strangers):
            cells += [f"{part.good} of {part.all}", f"{part.p50 * 1000:.0f} ms", f"{part.p99 * 1000:.0f} ms"]
        table.add_row(*cells, style=None if row.held else "red")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="times that each door is tried (default 5)")
    rounds = parser.parse_args().rounds
    console = Console(width=None if sys.stdout.isatty() else 100)
    rows = []
    for fault in FAULTS:
        console.print(f"fault: {fault} ...", highlight=False)
        rows.append(asyncio.run(measure(fault, rounds)))
    console.print(as_table(rows))
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
