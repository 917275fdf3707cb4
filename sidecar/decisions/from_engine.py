"""What other sidecars have kept in the engine, read on a miss: before the backend is asked, for at most 20 ms."""

from __future__ import annotations

import asyncio

from sidecar.clock import Clock
from sidecar.core.contact import PATIENCE, Contact, Trust
from sidecar.core.model import Key
from sidecar.core.sealed import Forged, Found, Sealer, usable
from sidecar.decisions.cache import Cache
from sidecar.decisions.needs import Engine
from sidecar.decisions.others import take
from sidecar.decisions.single_flight import Call, Pending, SingleFlight
from sidecar.errors import EngineError
from sidecar.facts import Crashed, Emit, SharedAsked

LATE = 0.01
"""Seconds by which this process may be late without being called so."""

AT_ONCE = 16
"""Keys that are read at a time: more at once than connections would all be too late."""


class FromEngine:
    """Reads into the cache. Nobody waits for an engine that fails or is slow."""

    def __init__(
        self, cache: Cache, engine: Engine, sealer: Sealer, contact: Contact, clock: Clock, emit: Emit
    ) -> None:
        self._cache = cache
        self._engine = engine
        self._sealer = sealer
        self._contact = contact
        self._clock = clock
        self._emit = emit
        self._reads: SingleFlight[Key, Found | None] = SingleFlight(lambda error: emit(Crashed("shared memory", error)))
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._trust = Trust()
        self._attempt: Call[Found | None] | None = None

    def forged(self) -> None:
        """Something in the engine has a wrong signature: it is left alone for a while."""
        self._trust.bad(self._clock.monotonic(), forged=True)
        self._emit(SharedAsked("forged"))

    async def recall(self, key: Key) -> Found | None:
        """Bring what the others know about a key into the cache. None: the engine was not asked, or is too slow.

        Many questions at once wait for their turn, since more reads at once than connections would all be too late.
        """
        until = self._clock.monotonic() + PATIENCE
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turns.acquire()
        except TimeoutError:
            return None
        try:
            call = self._reads.get(key) or await self._start(key, until)
            return None if call is None else await self._result(call, until)
        finally:
            self._turns.release()

    async def _start(self, key: Key, until: float) -> Call[Found | None] | None:
        """Ask the engine, unless it is left alone. A try whether it works again is for all questions that come
        meanwhile."""
        now = self._clock.monotonic()
        if not self._trust.allows(now):
            if self._attempt is None or self._attempt.task.done():
                return None
            await self._attempt.within(until - now)
            now = self._clock.monotonic()
            if not self._trust.allows(now):
                return None
        call = self._reads.get(key) or self._reads.start(key, now, self._read(key))
        if self._trust.is_trying:
            self._attempt = call
        return call

    async def _result(self, call: Call[Found | None], until: float) -> Found | None:
        found = await call.within(until - self._clock.monotonic())
        now = self._clock.monotonic()
        if isinstance(found, Pending) and now > until + LATE:
            found = await _after_what_is_ready(call)
        if isinstance(found, Pending):
            self._trust.bad(now)  # at once, so that those who wait for their turn need not wait for this engine
            return None
        return found

    async def _read(self, key: Key) -> Found | None:
        name, begun = self._sealer.key(key), self._clock.monotonic()
        try:
            found = await self._engine.read(name, self._sealer.scopes(key))
        except EngineError:
            self._trust.bad(self._clock.monotonic())
            self._emit(SharedAsked("failed"))
            return None
        now = self._clock.monotonic()
        if now - begun <= PATIENCE + LATE:
            self._trust.good()
        if found.content is None:
            self._emit(SharedAsked("miss"))
            return found
        try:
            kept = self._sealer.unpack(name, found.content)
        except Forged:
            self.forged()
            return None
        touch = self._contact.in_touch(now) and found.epoch == self._contact.epoch
        entry = usable(kept, found, now, in_touch=touch)
        if entry is None:
            self._emit(SharedAsked("outdated"))
        else:
            take(self._cache, key, entry)
            self._emit(SharedAsked("suspect" if entry.suspect else "hit"))
        return found


async def _after_what_is_ready(call: Call[Found | None]) -> Found | Pending | None:
    """The result, if it has arrived and this process was only too late to read it. Nothing more is waited for."""
    for _ in range(20):
        if call.task.done():
            break
        await asyncio.sleep(0)
    return await call.within(0)
