"""Part `scale`: the same answers with a thousand, a hundred thousand and a million cached decisions.

The cached answers come from disk, as after a restart, and the backend is not asked. One request at a time, about a
random user: this measures an answer, not a queue, and whoever asks does the same with each number of entries.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

from bench.asking import ask, question
from bench.installed import python
from bench.load import Crowd, press
from bench.peers import OURS, at_a_place, behind
from bench.peers.ours import Ours
from bench.program import SERVER_CORE
from bench.remembered import BODY, IN_A_ROOM, Load, fill
from bench.sample import Measured, Sample, WentWrong, tried
from tests.rig.ports import free_port

ENTRIES = (1_000, 10_000, 100_000, 1_000_000)
LOAD_WITHIN = 120.0
SENSIBLE = 50_000
"""With at least this number of entries, their memory can be separated from all other memory."""


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """The folders are filled once; each round reads them. Cache and disk alone are measured once."""
    with tempfile.TemporaryDirectory(prefix="prosody-sidecar-scale-") as name:
        sizes = [entries for entries in ENTRIES if not quick or entries <= 100_000]
        folders = {entries: Path(name) / str(entries) for entries in sizes}
        for entries, folder in folders.items():
            say(f"scale: {entries:,} entries go to the disk")
            await fill(folder, entries)
        for number in range(rounds):
            for entries, folder in folders.items():
                say(f"scale, round {number + 1}: {entries:,} entries")
                async for each in tried("scale", OURS, measured(folder, entries, number, 1 if quick else 2)):
                    yield each


async def measured(folder: Path, entries: int, number: int, seconds: float) -> AsyncIterator[Sample]:
    """One size in one round."""
    figures = await asked(folder, entries, seconds)
    if number == 0:
        figures |= await alone(folder, entries)
    for figure, value in figures.items():
        yield Sample("scale", f"{entries:,} entries", OURS, figure, value, number)


async def alone(folder: Path, entries: int) -> dict[str, float]:
    """The cache and the disk, without the rest of the sidecar."""
    command = ("taskset", "--cpu-list", str(SERVER_CORE), python(), "-m", "bench.remembered")
    process = await asyncio.create_subprocess_exec(
        *command, str(folder), str(entries), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1]
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), LOAD_WITHIN)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    load = Load(**json.loads(output))
    if load.entries != entries:
        raise WentWrong(f"{load.entries} of {entries} entries were loaded")
    figures = {
        "loaded in s": load.seconds,
        "loop waits at load ms": load.wait * 1e3,
        "put at the bound µs": load.eviction * 1e6,
        "loop waits at the bound ms": load.eviction_wait * 1e3,
    }
    if entries >= SENSIBLE:
        each = load.resident / entries
        figures |= {"bytes an entry": each, "without its body": each - len(BODY)}
    return figures


async def asked(folder: Path, entries: int, seconds: float) -> dict[str, float]:
    """A complete sidecar, asked about random entries."""
    admin = free_port()
    settings = {
        "admin": {"port": admin},
        "state_dir": str(folder),
        "cache": {"allows": entries, "denies": entries},
    }
    crowd = Crowd(question("room-%ROOM%", "user-%USER%"), entries, IN_A_ROOM, "random")
    async with at_a_place() as place, behind(place) as backend:
        begun = time.perf_counter()
        async with Ours(settings)(replace(place, fresh=86_400)) as server:
            listening = time.perf_counter() - begun
            await _until_loaded(admin, entries)
            figures = await press(server, crowd, "keep", seconds, at_once=1)
            resident = server.resident()
        if calls := (await ask(backend.port, "/counts")).document["calls"]:
            raise WentWrong(f"the backend was asked about an answer that was on disk: {calls}")
    return {
        "listens after s": listening,
        "CPU µs each": figures.cpu * 1e6,
        "p50 ms": figures.p50 * 1e3,
        "p99 ms": figures.p99 * 1e3,
        "longest ms": figures.longest * 1e3,
        "RSS MB": resident / 1e6,
    }


async def _until_loaded(admin: int, entries: int) -> None:
    give_up_at = time.perf_counter() + LOAD_WITHIN
    while time.perf_counter() < give_up_at:
        text = (await ask(admin, "/metrics")).body.decode()
        counts = [line for line in text.splitlines() if line.startswith("prosody_sidecar_cache_entries{")]
        if sum(float(line.split()[-1]) for line in counts) >= entries:
            return
        await asyncio.sleep(0.2)
    raise WentWrong(f"{entries} entries were not loaded within {LOAD_WITHIN:g} s")
