"""The programs that can be between Prosody and a meeting service, all started in the same way."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.asking import ask, question
from bench.backend import PREFIX
from bench.peers.direct import behind, direct
from bench.peers.empty import empty, listener
from bench.peers.nginx import nginx
from bench.peers.ours import Ours
from bench.peers.place import Place, Server
from bench.peers.varnish import varnish
from bench.program import READY_WITHIN
from bench.sample import WentWrong
from tests.rig.ports import free_port

Peer = Callable[[Place], AbstractAsyncContextManager[Server]]

EMPTY = "empty web.Server"
LISTENER = "sidecar's listener, constant answer"
DIRECT = "backend direct"
OURS = "sidecar"
LINK = "sidecar, over the link"
QUIET = "sidecar, log at warning"
NGINX = "nginx + Lua"
VARNISH = "Varnish"

PEERS: dict[str, Peer] = {
    EMPTY: empty,
    LISTENER: listener,
    OURS: Ours(),
    LINK: Ours(),
    QUIET: Ours({"log": {"level": "warning"}}),
    NGINX: nginx,
    VARNISH: varnish,
    DIRECT: direct,
}
PROXIES = (OURS, NGINX, VARNISH)
"""The peers that ask a backend and cache its answers."""

__all__ = [
    "DIRECT", "EMPTY", "LINK", "LISTENER", "NGINX", "OURS", "PEERS", "PROXIES", "QUIET", "VARNISH",
    "AtWork", "Peer", "Place", "Server", "at_a_place", "at_work", "behind", "until_it_answers",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class AtWork:
    """A peer that answers, and its backend, which has counted nothing yet."""

    peer: Server
    backend: Server
    answers_after: float
    """Seconds from the start of the peer to its first answer."""
    cpu_before: float
    """Seconds of CPU time that it has used until then."""


@asynccontextmanager
async def at_a_place(*, fresh: int = 3600, latency: float = 0.0, capacity: int = 0) -> AsyncIterator[Place]:
    """A new folder, and free ports."""
    with tempfile.TemporaryDirectory(prefix="prosody-sidecar-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # a worker of nginx is another user
        yield Place(Path(folder), free_port(), free_port(), fresh=fresh, latency=latency, capacity=capacity)


@asynccontextmanager
async def at_work(who: str, *, fresh: int = 3600, latency: float = 0.0, capacity: int = 0) -> AsyncIterator[AtWork]:
    """A peer in a place of its own. Raises WentWrong if it does not come up."""
    async with at_a_place(fresh=fresh, latency=latency, capacity=capacity) as place, behind(place) as backend:
        begun = time.perf_counter()
        async with PEERS[who](place) as peer:
            await until_it_answers(peer)
            answers_after, cpu_before = time.perf_counter() - begun, peer.cpu_seconds()
            await ask(peer.port if who == DIRECT else backend.port, "/counts")
            yield AtWork(peer, backend, answers_after, cpu_before)


async def until_it_answers(peer: Server) -> None:
    """Wait until it answers a question as the backend does: a proxy may listen before it has found its backend well.
    The question is about a room that nobody else asks about."""
    give_up_at = time.perf_counter() + READY_WITHIN
    while (reply := await ask(peer.port, f"{PREFIX}/validate-access", question("ready", "nobody"))).allowed is not True:
        if peer.programs[0].process.returncode is not None:
            raise WentWrong(f"it ended: {peer.programs[0].last_words()}")
        if time.perf_counter() > give_up_at:
            said = f"{reply.status} {reply.body[:200]!r}, {peer.programs[0].last_words()[-600:]}"
            raise WentWrong(f"it gave no right answer within {READY_WITHIN:g} s: {said}")
        await asyncio.sleep(0.01)
