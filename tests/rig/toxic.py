"""A TCP proxy that delays, reorders, cuts, or goes silent, between the sidecars and the engine."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Self


class Toxic:
    """Forwards to a port of 127.0.0.1, as long as it is well."""

    def __init__(self, to: int) -> None:
        self.to = to
        self.delay = 0.0
        """Seconds for which bytes are held, in each direction."""
        self.jitter = 0.0
        """At most so many seconds more, at random: what was sent first on one connection comes later than what was sent
        afterwards on another."""
        self.silent = False
        """Bytes are taken and not passed on."""
        self.loses_answers = False
        """The same, for what comes back."""
        self.refuses = False
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """End all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def heal(self) -> None:
        """All is well from now on. Connections that have lost bytes are ended."""
        self.delay, self.jitter = 0.0, 0.0
        lossy = self.silent or self.loses_answers
        self.silent, self.loses_answers, self.refuses = False, False, False
        if lossy:
            self.cut()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for source, sink, back in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, back=back))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, back: bool) -> None:
        try:
            while data := await source.read(65536):
                if self.delay or self.jitter:
                    await asyncio.sleep(self.delay + random.uniform(0, self.jitter))
                if not (self.silent or (back and self.loses_answers)):
                    sink.write(data)
                    await sink.drain()
        except OSError:
            pass
        finally:
            sink.close()
            self._writers.discard(sink)
