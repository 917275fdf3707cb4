"""The programs that can be between Prosody and a meeting service, all started in the same way."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from bench.peers.direct import behind, direct
from bench.peers.empty import empty
from bench.peers.nginx import nginx
from bench.peers.ours import Ours
from bench.peers.place import Place, Server
from bench.peers.varnish import varnish
from tests.rig.ports import free_port

Peer = Callable[[Place], AbstractAsyncContextManager[Server]]

EMPTY = "empty web.Server"
DIRECT = "backend direct"
OURS = "sidecar"

PEERS: dict[str, Peer] = {
    EMPTY: empty,
    OURS: Ours(),
    "sidecar, log at warning": Ours({"log": {"level": "warning"}}),
    "nginx + Lua": nginx,
    "Varnish": varnish,
    DIRECT: direct,
}
PROXIES = (OURS, "nginx + Lua", "Varnish")
"""The peers that ask a backend and cache its answers."""

__all__ = ["DIRECT", "EMPTY", "OURS", "PEERS", "PROXIES", "Peer", "Place", "Server", "at_a_place", "behind"]


@asynccontextmanager
async def at_a_place(*, fresh: int = 3600, latency: float = 0.0) -> AsyncIterator[Place]:
    """A new folder, and free ports."""
    with tempfile.TemporaryDirectory(prefix="prosody-sidecar-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # a worker of nginx is another user
        yield Place(Path(folder), free_port(), free_port(), fresh=fresh, latency=latency)
