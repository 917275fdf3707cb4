"""What a shared memory costs: with it and without it in turn, and what it costs the engine.

    python -m tests.shards.figures     prints all, and writes the measured part of docs/shards.md
    python -m tests.shards.figures --quick     prints rough figures in a minute

Figures of the engine are counts of its own (INFO) and CPU time; they hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.asking import question
from bench.load import Crowd, press
from bench.peers import Server
from bench.program import Program
from sidecar.core.fences import scopes
from sidecar.core.model import Endpoint, Key, Lifetimes, Verdict
from sidecar.core.sealed import Kept, Sealer, ToKeep
from sidecar.shared.engine import Engine, Place
from tests.rig.answers import deny
from tests.rig.backend import OPEN, Backend
from tests.rig.engine import EngineProcess
from tests.rig.sidecar import ROOT, Sidecar
from tests.shards.rig import KEY, all_in_touch, write_secret

PAGE = ROOT / "docs" / "shards.md"
MEASURED = re.compile(r"(?<=<!-- measured -->\n)(?s:.*)(?=<!-- end of measured -->)")
SETTINGS: dict[str, Any] = {
    "log": {"level": "warning"},
    "endpoints": {"validate-access": {"allow": {"fresh": 3600}}},
}
CROWD = Crowd(question("room-%ROOM%", "user-%USER%"), 1_000)
BODY = b'{"allowed":true,"reason":null,"meetingTitle":"Standup","status":"ACTIVE"}'


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    misses: int
    denies: int
    decisions: int
    idle: float


WHOLE, QUICK = Size(5, 200, 100, 100_000, 10.0), Size(1, 100, 40, 5_000, 5.0)


@dataclass(frozen=True)
class Counts:
    """The engine's own: CPU seconds, bytes in and out, commands, and microseconds in scripts."""

    cpu: float
    bytes_in: int
    bytes_out: int
    commands: int
    scripts: int
    script_seconds: float

    @classmethod
    async def of(cls, engine: EngineProcess) -> Counts:
        """Those since it was started."""
        cpu, stats, by_name = [await engine.info(each) for each in ("cpu", "stats", "commandstats")]
        scripts = [by_name[name] for name in ("cmdstat_evalsha", "cmdstat_eval") if name in by_name]
        return cls(
            cpu["used_cpu_user"] + cpu["used_cpu_sys"],
            stats["total_net_input_bytes"],
            stats["total_net_output_bytes"],
            stats["total_commands_processed"],
            sum(each["calls"] for each in scripts),
            sum(each["usec"] for each in scripts) / 1e6,
        )

    def since(self, before: Counts) -> Counts:
        """The difference."""
        return Counts(*(now - then for now, then in zip(self._all(), before._all(), strict=True)))  # type: ignore[arg-type]

    def each(self, count: float) -> Counts:
        """For one of so many."""
        return Counts(*(now / count for now in self._all()))  # type: ignore[arg-type]

    def _all(self) -> tuple[float, ...]:
        return self.cpu, self.bytes_in, self.bytes_out, self.commands, self.scripts, self.script_seconds


@asynccontextmanager
async def sidecar(backend: Backend, engine: EngineProcess | None) -> AsyncIterator[Sidecar]:
    """One that shares this engine, or is alone."""
    async with Sidecar.prepared(backend.url, SETTINGS, on_disk=True) as it:
        write_secret(it.folder / "key", KEY)
        it.write({"shared": {"url": engine.url, "key_file": str(it.folder / "key")}} if engine else {})
        await it.run()
        if engine:
            await all_in_touch(it)
        yield it
        await it.end()


def measured(it: Sidecar) -> Server:
    """As bench/load.py presses it."""
    assert it.process is not None
    return Server(it.config["listen"]["port"], (Program(it.process, it.folder / "out"),))


# -- with and without, in turn


async def side_by_side(size: Size, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Warm decisions and misses: for "without", "with", each figure, as the median of all rounds."""
    found: dict[str, dict[str, list[float]]] = {"without": {}, "with": {}}
    async with Backend(OPEN) as backend, EngineProcess.start() as engine, AsyncExitStack() as stack:
        both = {
            "without": await stack.enter_async_context(sidecar(backend, None)),
            "with": await stack.enter_async_context(sidecar(backend, engine)),
        }
        for each in both.values():
            await press(measured(each), CROWD, "keep", 2)  # all are remembered from here on
        await asyncio.sleep(10.0)  # what was learned is written behind
        number = 0
        for turn in range(size.rounds):
            say(f"side by side, round {turn + 1}")
            for name in sorted(both, reverse=bool(turn % 2)):
                figures = await press(measured(both[name]), CROWD, "keep", 2)
                _add(found[name], "warm decisions/s", figures.per_second)
                _add(found[name], "warm CPU µs", figures.cpu * 1e6)
                _add(found[name], "warm p50 ms", figures.p50 * 1e3)
                _add(found[name], "warm p99 ms", figures.p99 * 1e3)
            seconds: dict[str, list[float]] = {name: [] for name in both}
            cpu = dict.fromkeys(both, 0.0)
            for _ in range(size.misses):
                number += 1
                for name in sorted(both, reverse=bool(number % 2)):
                    before = measured(both[name]).cpu_seconds()
                    reply = await both[name].decides(f"miss-{number // 10}", f"user-{number}@example.com")
                    assert reply.allowed
                    seconds[name].append(reply.seconds)
                    cpu[name] += measured(both[name]).cpu_seconds() - before
            for name in both:
                ordered = sorted(seconds[name])
                _add(found[name], "miss p50 ms", statistics.median(ordered) * 1e3)
                _add(found[name], "miss p99 ms", ordered[len(ordered) * 99 // 100] * 1e3)
                _add(found[name], "miss CPU µs", cpu[name] / size.misses * 1e6)
            backend.requests.clear()
    return {name: {figure: statistics.median(values) for figure, values in of.items()} for name, of in found.items()}


def _add(figures: dict[str, list[float]], name: str, value: float) -> None:
    figures.setdefault(name, []).append(value)


# -- what the engine does


@dataclass(frozen=True)
class Work:
    """What the engine does in a second for one idle sidecar, for a join that nobody knows, for one that another shard
    knows, and for a deny at one shard, by the number of shards."""

    beat: Counts
    new: Counts
    known: Counts
    denies: dict[int, Counts]
    deny_bytes: float


async def work_of_the_engine(size: Size, say: Callable[[str], None]) -> Work:
    """All of it, with real sidecars."""
    denies, idle, new, known, deny_bytes = dict[int, Counts](), dict[int, Counts](), None, None, 0.0
    for shards in (1, 2, 4):
        say(f"the engine with {shards} shards")
        async with Backend(OPEN) as backend, EngineProcess.start() as engine, AsyncExitStack() as stack:
            all_of_them = [await stack.enter_async_context(sidecar(backend, engine)) for _ in range(shards)]
            await asyncio.sleep(2.0)
            a_second = idle[shards] = (await _counted(engine, asyncio.sleep, size.idle)).each(size.idle)
            if shards == 2:
                here, there = all_of_them
                new = await _joins(engine, here, size.misses, a_second)
                known = await _joins(engine, there, size.misses, a_second)
            backend.on("validate-access", deny("cancelled"))
            before = (await engine.info("memory"))["used_memory_dataset"]
            denies[shards] = await _denies(engine, all_of_them[0], size.denies, a_second)
            deny_bytes = ((await engine.info("memory"))["used_memory_dataset"] - before) / size.denies
    assert new is not None
    assert known is not None
    return Work(idle[4].since(idle[1]).each(3), new, known, denies, deny_bytes)


async def _counted(engine: EngineProcess, work: Callable[..., Any], *arguments: Any) -> Counts:
    before = await Counts.of(engine)
    await work(*arguments)
    return (await Counts.of(engine)).since(before)


async def _joins(engine: EngineProcess, at: Sidecar, count: int, idle: Counts) -> Counts:
    """For one join, without what goes on anyway."""

    async def join() -> None:
        for number in range(count):
            assert (await at.decides(f"room-{number // 10}", f"user-{number}@example.com")).allowed
        await asyncio.sleep(1.5)

    return await _for_each(engine, join, count, idle)


async def _denies(engine: EngineProcess, at: Sidecar, count: int, idle: Counts) -> Counts:
    """For one deny of 20 in a second."""

    async def be_denied() -> None:
        for number in range(count):
            assert not (await at.decides(f"deny-{number // 10}", f"user-{number}@example.com")).allowed
            await asyncio.sleep(0.05)
        await asyncio.sleep(1.5)

    return await _for_each(engine, be_denied, count, idle)


async def _for_each(engine: EngineProcess, work: Callable[[], Any], count: int, idle: Counts) -> Counts:
    begun = time.monotonic()
    counted = await _counted(engine, work)
    return counted.since(idle.each(1 / (time.monotonic() - begun))).each(count)


async def bytes_of_a_decision(size: Size) -> float:
    """Memory of the engine for one remembered allow with its fences: ten users in a room, each in two rooms."""
    sealer = Sealer.of(KEY.encode(), "prosody-sidecar", ())
    async with EngineProcess.start() as process:
        names = iter(range(10**9))
        engine = Engine(Place(process.url), lambda: f"{next(names):016x}")
        before = (await process.info("memory"))["used_memory"]

        async def remember(number: int) -> None:
            room = f"room-{number // 10}"
            key = Key(Endpoint.VALIDATE_ACCESS, room, None, None, f"jid user-{number // 20}-{number % 10}@example.com")
            labels, name = [sealer.digest(scope) for scope in scopes(key)], sealer.key(key)
            found = await engine.read(name, labels, patient=True)
            kept = Kept(Verdict.ALLOW, BODY, found.epoch, found.now_ms, Lifetimes(15, 15, 3600), found.fences)
            content = sealer.pack(name, kept)
            it = ToKeep(name, labels, "allow", found.epoch, found.fences, found.now_ms, 3_600_000, content)
            assert await engine.keep([it]) == ["kept"]

        for first in range(0, size.decisions, 16):
            await asyncio.gather(*map(remember, range(first, min(first + 16, size.decisions))))
        used = int((await process.info("memory"))["used_memory"]) - before
        await engine.close()
    return float(used / size.decisions)


# -- what it says


def table_of(sides: dict[str, dict[str, float]]) -> str:
    """With and without, side by side."""
    rows = ["| | without | with |\n|---|---|---|\n"]
    for name in sides["with"]:
        digits = 0 if "/s" in name or "µs" in name else 2
        rows.append(f"| {name} | {sides['without'][name]:,.{digits}f} | {sides['with'][name]:,.{digits}f} |\n")
    return "".join(rows)


def table_of_work(work: Work, decision: float) -> str:
    """What the engine does for one of each."""
    rows = [
        "| for one | engine's CPU | of this in scripts | scripts | bytes in | bytes out |\n|---|---|---|---|---|---|\n"
    ]
    named = {
        "second of an idle sidecar": work.beat,
        "join that no shard knows": work.new,
        "join that another shard knows": work.known,
        **{f"deny, with {shards} {'shard' if shards == 1 else 'shards'}": it for shards, it in work.denies.items()},
    }
    for name, it in named.items():
        rows.append(
            f"| {name} | {it.cpu * 1e6:,.0f} µs | {it.script_seconds * 1e6:,.0f} µs | {it.scripts:.1f} "
            f"| {it.bytes_in:,.0f} | {it.bytes_out:,.0f} |\n"
        )
    rows.append(
        f"\nMemory: {decision:,.0f} bytes for a remembered decision with its fences, so {decision / 1000:,.2f} GB for "
        f"a million; {work.deny_bytes:,.0f} bytes for a deny with its fences and its message.\n"
    )
    return "".join(rows)


async def main(size: Size, *, write: bool) -> None:
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - begun:4.0f} s, load {os.getloadavg()[0]:.1f}: {what}", flush=True)

    sides = await side_by_side(size, say)
    print(table_of(sides), flush=True)
    work = await work_of_the_engine(size, say)
    say("memory")
    decision = await bytes_of_a_decision(size)
    text = f"{table_of(sides)}\n{table_of_work(work, decision)}"
    print(text)
    if write:
        PAGE.write_text(MEASURED.sub(lambda _: f"\n{text}\n", PAGE.read_text(), count=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.shards.figures", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough figures, which are only printed")
    quick = parser.parse_args().quick
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(QUICK if quick else WHOLE, write=not quick))
    sys.exit(0)
