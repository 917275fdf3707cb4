"""Part `rates`: CPU and latency of cached decisions at fixed rates, from a few hundred a second up to the rate at which
a peer does not keep up. HTTP is asked on kept connections. Where those who ask need their whole core, a line ends too:
this is the limit of the measurement, not of the peer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from bench.answering import BODIES, QUESTIONS, warm
from bench.paced import Kept, Linked, Pace, Way, paced
from bench.peers import EMPTY, LINK, NGINX, OURS, VARNISH, Server
from bench.program import CLIENT_CORE, on_core
from bench.sample import Measured, Sample, WentWrong, tried

ROWS = (OURS, LINK, EMPTY, NGINX, VARNISH)
RATES = (250, 500, 1_000, 2_000, 3_000, 4_500, 6_000, 8_000, 11_000, 15_000, 20_000)
BUSY = 0.95


async def measure(rounds: int, quick: bool, say: Callable[[str], None]) -> AsyncIterator[Measured]:
    """Each peer at all rates."""
    for number in range(rounds):
        for who in ROWS:
            say(f"rates, round {number + 1}: {who}")
            async for each in tried("rates", who, kept_up(who, number, RATES[2:5] if quick else RATES, say)):
                yield each


async def kept_up(
    who: str, number: int, rates: tuple[int, ...], say: Callable[[str], None], seconds: float = 0.6
) -> AsyncIterator[Sample]:
    """The figures of one peer, until it does not keep up."""
    async with warm(who) as work:
        way: Way = Linked(work.peer.port, BODIES) if who == LINK else Kept(work.peer.port, QUESTIONS)
        try:
            for rate in rates:
                pace, cpu = _measured(work.peer, way, rate, seconds)
                if not pace.keeps_up:
                    why = "those who ask" if pace.busy > BUSY else "it"
                    say(f"rates: {who} ends below {rate:,} a second, which {why} cannot do")
                    return
                times = pace.latencies
                for figure, value in (
                    ("CPU µs each", cpu * 1e6),
                    ("p50 ms", times[len(times) // 2] * 1e3),
                    ("p99 ms", times[len(times) * 99 // 100] * 1e3),
                    ("those who ask busy %", pace.busy * 100),
                ):
                    yield Sample("rates", f"{rate:,} a second", who, figure, value, number)
        finally:
            way.close()


def _measured(peer: Server, way: Way, rate: int, seconds: float) -> tuple[Pace, float]:
    with on_core(CLIENT_CORE):
        before = peer.cpu_seconds()
        pace = paced(way, rate, seconds)
        used = peer.cpu_seconds() - before
    if not pace.latencies:
        raise WentWrong("no answer came")
    return pace, used / len(pace.latencies)
