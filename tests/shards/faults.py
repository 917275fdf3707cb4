"""What two shards answer while the engine fails: each fault is really produced, and each answer really given.

    python -m tests.shards.faults             runs all, and writes docs/shards-faults.md
    python -m tests.shards.faults replica     only those with this in their name, and prints them

test_fault_table.py runs some of them, and checks the page.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice, product
from typing import Any

from tests.rig.backend import OPEN, Backend
from tests.rig.sidecar import ROOT
from tests.shards.cast import HERE, THERE, Cast, Person, Scene, Seen, newcomer
from tests.shards.engine_faults import FAULTS, EngineFault, Place
from tests.shards.rig import all_in_touch, in_touch, shard

PAGE = ROOT / "docs" / "shards-faults.md"
SETTLED = 7.0
"""Seconds after which the answers are taken: a shard that is cut off knows it within five."""

BEFORE, DURING = "before", "during"
"""When `here` learns about the users."""

WORKS, AWAY, HEALED = "works", "away", "healed"
"""How the backend is when the answers are taken; `HEALED`: still away, and the engine works again."""


@dataclass
class Result:
    """One fault."""

    fault: EngineFault
    seen: dict[tuple[Person, str, str, bool], Seen] = field(default_factory=dict)
    """By person, when it was learned, how the backend is, and whether `here` was asked."""
    out_after: float | None = None
    """Seconds until a shard knew that it is out of touch; None: it stayed in touch, as often as was looked."""
    longest: float = 0.0
    """Seconds of the longest answer while the backend worked."""
    refused: int = 0
    """Newcomers who were invited, and refused while the backend worked."""
    newcomers: int = 0
    back_after: float = 0.0
    """Seconds until both shards were in touch when the fault had ended, and had said all they knew."""

    @property
    def problems(self) -> list[str]:
        """Answers that must not be."""
        found = [f"{self.refused} newcomers refused"] if self.refused else []
        for (person, when, backend, at_here), seen in self.seen.items():
            right = must(self.fault, person, when, backend, at_here=at_here)
            if right is not None and seen.allowed is not right:
                where = "here" if at_here else "there"
                found.append(f"{person.value}, learned {when}, backend {backend}, {where}: {seen.words}")
        return [f"{self.fault.name}: {each}" for each in found]


def must(fault: EngineFault, person: Person, when: str, backend: str, *, at_here: bool) -> bool | None:
    """Whether the user must be let in; None: it depends on the fault."""
    unheard = when == DURING and backend != HEALED and not at_here and not fault.hears
    match person:
        case Person.STRANGER:
            return False
        case Person.KNOWN:
            return True if backend == WORKS or at_here else None
        case Person.KICKED if backend == WORKS:
            return True  # the backend still invites the user
        case Person.CANCELLED if backend != WORKS:
            return None  # it is another user who was denied
        case _:
            return None if unheard and (backend == AWAY or fault.unheard_of) else False


SCENES = [Scene(*each) for each in product(Person, (BEFORE, DURING), (WORKS, AWAY), (True, False))]


async def run(fault: EngineFault) -> Result:
    """Learn, break, learn, look, heal, look."""
    result = Result(fault)
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(Backend(OPEN))
        place = await stack.enter_async_context(Place.start())
        ways = zip(place.ways, (HERE, THERE), strict=True)
        here, there = [await stack.enter_async_context(shard(backend, way.url, it)) for way, it in ways]
        await all_in_touch(here, there)
        await fault.prepare(place)
        cast = Cast(here, there)
        cast.direct(backend)
        await _do(map(cast.meet, SCENES))
        await _do(cast.learn(scene) for scene in SCENES if scene.when == BEFORE)
        await _until_written(cast)
        await fault.begin(place)
        async with asyncio.TaskGroup() as group:
            group.create_task(_newcomers(cast, result))
            group.create_task(_do(cast.learn(scene) for scene in SCENES if scene.when == DURING))
        await _look(cast, result, WORKS)
        result.longest = max(result.longest, *(seen.seconds for seen in result.seen.values()))
        await backend.stop()
        await _look(cast, result, AWAY)
        await fault.end(place)
        result.back_after = await all_in_touch(here, there, seconds=30)
        await asyncio.sleep(1.5)
        await _look(cast, result, AWAY, HEALED)
    return result


async def _do(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """A few at a time: all at once, a busy machine would need more than the 20 ms that a question waits."""
    for some in batched(works, 3):
        await asyncio.gather(*some)


def batched(works: Iterable[Coroutine[Any, Any, None]], size: int) -> Iterator[list[Coroutine[Any, Any, None]]]:
    """Lists of that size."""
    it = iter(works)
    while some := list(islice(it, size)):
        yield some


async def _until_written(cast: Cast) -> None:
    """What was learned is in the engine, and the other shard has heard of it."""
    await all_in_touch(cast.here, cast.there)
    await asyncio.sleep(1.5)


async def _newcomers(cast: Cast, result: Result) -> None:
    """Joins in the first seconds, while nobody may know of the fault yet."""
    begun = time.monotonic()
    while time.monotonic() - begun < SETTLED:
        for each in (cast.here, cast.there):
            reply = await newcomer(each, cast, result.newcomers)
            result.newcomers += 1
            result.refused += not reply.allowed
            result.longest = max(result.longest, reply.seconds)
        if result.out_after is None and not await in_touch(cast.there):
            result.out_after = time.monotonic() - begun
        await asyncio.sleep(0.1)


async def _look(cast: Cast, result: Result, backend: str, noted_as: str | None = None) -> None:
    """Ask in all scenes for this state of the backend."""
    for scene in SCENES:
        if scene.backend == backend:
            key = scene.person, scene.when, noted_as or backend, scene.at_here
            result.seen[key] = await cast.ask(scene)


# -- the page

SUMMARY = re.compile(r"(?<=\| # \| fault \|)(.*\n)(\|---.*\n)((?:\|.*\n)*)")
DETAIL = re.compile(r"(?<=<!-- answers -->\n)(?s:.*)(?=<!-- end -->)")


def summary_row(number: int, result: Result) -> str:
    """One fault."""
    out = "" if result.out_after is None else f"{result.out_after:.1f} s"
    longest = f"{result.longest * 1000:.0f} ms"
    return f"| {number} | {result.fault.name} | {out} | {longest} | {result.back_after:.1f} s |"


def answers(results: Iterable[tuple[int, Result]]) -> str:
    """The same answers in one row."""
    rows: dict[tuple[Person, str, tuple[str, ...]], list[int]] = defaultdict(list)
    slowest: dict[tuple[Person, str, tuple[str, ...]], float] = defaultdict(float)
    for number, result in results:
        for person in Person:
            for when in (BEFORE, DURING):
                all_seen = [result.seen[person, when, *each] for each in product((WORKS, AWAY, HEALED), (True, False))]
                row = (person, when, tuple(seen.words for seen in all_seen))
                rows[row].append(number)
                slowest[row] = max(slowest[row], *(seen.seconds for seen in all_seen))
    order = {person: place for place, person in enumerate(Person)}
    lines = []
    for (person, when, words), numbers in sorted(rows.items(), key=lambda each: (order[each[0][0]], each[0][1])):
        spoken = " | ".join(words)
        longest = f"{slowest[person, when, words] * 1000:.0f} ms"
        lines.append(f"| {person.value} | {when} | {spoken} | {longest} | {_ranges(numbers)} |\n")
    return "".join(lines)


def _ranges(numbers: list[int]) -> str:
    """1, 2, 3, 7 as 1-3, 7."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)


ANSWERS_HEAD = (
    "| user | learned | here, backend works | another, backend works | here, backend away | another, backend away "
    "| here, engine back | another, engine back | longest | faults |\n|" + "---|" * 10 + "\n"
)


async def main(part: str) -> int:
    """Run those with this in their name; all: also write the page. 1 if an answer must not be."""
    results = []
    for number, fault in enumerate(FAULTS):
        if part in fault.name:
            result = await run(fault)
            results.append((number, result))
            sys.stdout.write(f"{summary_row(number, result)} {result.newcomers} newcomers\n")
            sys.stdout.writelines(f"  MUST NOT BE: {problem}\n" for problem in result.problems)
            sys.stdout.flush()
    table = answers(results)
    sys.stdout.write(f"\n{ANSWERS_HEAD}{table}")
    if not part:
        rows = "".join(f"{summary_row(number, result)}\n" for number, result in results)
        text = SUMMARY.sub(lambda found: found[1] + found[2] + rows, PAGE.read_text(), count=1)
        PAGE.write_text(DETAIL.sub(lambda _: f"\n{ANSWERS_HEAD}{table}\n", text, count=1))
    return 1 if any(result.problems for _, result in results) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(" ".join(sys.argv[1:]))))
