"""All parts, in the order in which they run. Each is an async generator of samples in its own file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from bench import answering, checks, cost, disk, herd, joins, scale
from bench.backend import PREFIX
from bench.peers import DIRECT, EMPTY, at_a_place
from bench.peers.nginx import nginx
from bench.program import CLIENT_CORE
from bench.report import Heading
from bench.sample import Sample
from tests.rig.prosody import VERSIONS

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """`measure(rounds, quick, say)`; `say` is called when a measurement begins."""

    heading: Heading
    measure: Callable[[int, bool, Say], AsyncIterator[Sample]]


async def joined(rounds: int, quick: bool, say: Say) -> AsyncIterator[Sample]:
    """Joins, also with nginx instead of the sidecar: on the same core, with the same kind of backend."""
    versions, sizes, count = (("0.12",), (5,), 50) if quick else (VERSIONS, (1, 10), joins.JOINS)
    async with at_a_place() as place, joins.meetings() as backend:
        before = replace(place, backend_port=urlsplit(backend).port or 0, core=CLIENT_CORE)
        async with nginx(before) as server:
            url = f"http://127.0.0.1:{server.port}{PREFIX}"
            samples = joins.measure(rounds, versions=versions, sizes=sizes, joins=count, nginx_url=url, say=say)
            async for sample in samples:
                yield sample


PARTS = (
    Part(Heading("checks", "What was checked first"), checks.measure),
    Part(
        Heading("answering", "Decisions from memory, on one core", EMPTY, drawn=("decisions/s", "CPU µs each")),
        answering.measure,
    ),
    Part(Heading("joins", "Joins into real Prosody", joins.BARE, drawn=("joins/s", joins.CPU)), joined),
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
