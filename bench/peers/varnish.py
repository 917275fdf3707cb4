"""Varnish as a caching proxy: see varnish.vcl. It logs into shared memory; a second program writes a line for each
request, and is counted too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.backend import SECRET
from bench.peers.place import Place, Server, filled, serving
from bench.program import running

HERE = Path(__file__).parent
LINE = (
    '{"time":"%{%FT%TZ}t","endpoint":"%U","status":%s,"seconds":%{Varnish:time_firstbyte}x,'
    '"source":"%{Varnish:handling}x","trace":"%{Varnish:vxid}x"}'
)


@asynccontextmanager
async def varnish(place: Place) -> AsyncIterator[Server]:
    """A Varnish with its cache in RAM and its log in a file."""
    folder = place.folder / "varnish"
    folder.mkdir()
    recipe = folder / "varnish.vcl"
    values = {"backend": place.backend_port, "fresh": place.fresh, "stale": place.stale, "secret": SECRET}
    recipe.write_text(filled(HERE / "varnish.vcl", **values))
    arguments = (
        "/usr/sbin/varnishd", "-F", "-j", "none", "-T", "none", "-n", str(folder / "run"), "-f", str(recipe),
        "-a", f"127.0.0.1:{place.port}", "-s", "malloc,256m", "-p", "listen_depth=4096",
    )  # fmt: skip
    async with serving(place, "varnish", *arguments) as server:
        log = ("/usr/bin/varnishncsa", "-n", str(folder / "run"), "-F", LINE, "-w", str(folder / "access.log"))
        async with running(log, place.folder / "varnishncsa.log", place.core) as writer:
            yield Server(server.port, (*server.programs, writer))
