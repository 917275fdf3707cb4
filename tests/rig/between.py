"""What is between Prosody and the sidecar: it loses what goes over the link in one direction, cuts the link, or
lets none through. HTTP is never hindered.

    async with Between(sidecar.config["listen"]["port"]) as between:
        between.lose("up")      # what the module says does not arrive
        between.cut()
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Literal, Self

from tests.rig.backend import PREFIX

Direction = Literal["up", "down"]


class Between:
    """Use as `async with`. The port of the sidecar may be closed now and then."""

    def __init__(self, port: int) -> None:
        self.refuses_links = False
        self.url = ""
        self._port = port
        self._lost: set[Direction] = set()
        self._links: list[asyncio.StreamWriter] = []
        self._all: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{PREFIX}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._all:
            writer.transport.abort()

    def lose(self, direction: Direction) -> None:
        """What goes in this direction over the links of now is lost from here on."""
        self._lost.add(direction)

    def cut(self) -> None:
        """Ends the links; the next ones are whole."""
        self._lost.clear()
        for writer in self._links:
            writer.transport.abort()
        self._links.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._all.append(writer)
        with contextlib.suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            is_link = head.startswith(b"GET ")
            if is_link and self.refuses_links:
                writer.transport.abort()
                return
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._all.append(far_writer)
            if is_link:
                self._links += [writer, far_writer]
            far_writer.write(head)
            await asyncio.gather(
                self._pass(reader, far_writer, "up" if is_link else None),
                self._pass(far_reader, writer, "down" if is_link else None),
            )
        writer.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if direction not in self._lost:
                    writer.write(data)
        writer.close()
