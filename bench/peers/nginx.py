"""nginx with Lua as a caching proxy: see nginx.conf and key.lua."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.backend import SECRET
from bench.peers.place import Place, Server, filled, serving

HERE = Path(__file__).parent


@asynccontextmanager
async def nginx(place: Place) -> AsyncIterator[Server]:
    """A master and one worker, with all files in the folder."""
    folder = place.folder / "nginx"
    folder.mkdir()
    values = {"port": place.port, "backend": place.backend_port, "fresh": place.fresh, "secret": SECRET}
    config = folder / "nginx.conf"
    config.write_text(filled(HERE / "nginx.conf", lua=HERE / "key.lua", **values))
    async with serving(place, "nginx", "/usr/sbin/nginx", "-e", "stderr", "-p", f"{folder}/", "-c", str(config)) as it:
        yield it
