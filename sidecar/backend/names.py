"""The backend's name in DNS. A name server that fails or is slow does not make a backend unavailable that is known."""

from __future__ import annotations

import asyncio
import socket
from typing import NamedTuple

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

PATIENCE = 0.5
"""Seconds a lookup may take where older addresses are known (the idea of RFC 8767)."""

KNOWN_FOR = 3600.0
"""Seconds for which addresses may be used after the lookup that found them."""

NO_SUCH_NAME = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class _Key(NamedTuple):
    host: str
    port: int
    family: socket.AddressFamily


class _Found(NamedTuple):
    addresses: list[ResolveResult]
    at: float


class Names(AbstractResolver):
    """Looks names up, one lookup of a name at a time. Who asks also caches: see `ADDRESS_KNOWN` in pool.py."""

    def __init__(self, dns: AbstractResolver | None = None) -> None:
        """`dns` does the lookups; None: the machine's own resolver."""
        self._dns = dns or ThreadedResolver()
        self._found: dict[_Key, _Found] = {}
        self._lookups: dict[_Key, asyncio.Task[list[ResolveResult]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses now; those found before, if the lookup fails or is slow. A name that does not exist is no
        failure of the lookup. Raises OSError without any address."""
        key = _Key(host, port, family)
        known = self._known(key)
        lookup = self._lookups.get(key) or self._begin(key)
        try:
            async with asyncio.timeout(None if known is None else PATIENCE):
                return await asyncio.shield(lookup)
        except OSError as error:
            if known is None or error.errno in NO_SUCH_NAME:
                raise
            return known

    def _known(self, key: _Key) -> list[ResolveResult] | None:
        found = self._found.get(key)
        now = asyncio.get_running_loop().time()
        return found.addresses if found is not None and now - found.at < KNOWN_FOR else None

    def _begin(self, key: _Key) -> asyncio.Task[list[ResolveResult]]:
        task = self._lookups[key] = asyncio.create_task(self._dns.resolve(*key))
        task.add_done_callback(lambda done: self._end(key, done))
        return task

    def _end(self, key: _Key, task: asyncio.Task[list[ResolveResult]]) -> None:
        del self._lookups[key]
        if task.cancelled():
            return
        if task.exception() is None:
            self._found = {key: _Found(task.result(), asyncio.get_running_loop().time())}  # of one backend only

    async def close(self) -> None:
        """End the lookups that are under way."""
        for task in self._lookups.values():
            task.cancel()
        await self._dns.close()
