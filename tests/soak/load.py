"""The steady load: people who join, rooms that send events, and organisers who change invitations."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
from aiohttp import web

from tests.rig.answers import Request
from tests.rig.backend import EVERYTHING_ELSE, Backend
from tests.rig.sidecar import Sidecar
from tests.soak.model import CHANGING, LATE, ROOMS, Model, somebody

JOINERS, TELLERS = 4, 6
PAUSE = 0.1
NOT_ACCEPTED = 1.0
"""Seconds that a connection may wait to be accepted on a busy machine."""
NOBODY = (aiohttp.ClientError, TimeoutError)


class Load:
    """Runs beside everything else."""

    def __init__(self, sidecar: Sidecar, backend: Backend, model: Model, chance: random.Random) -> None:
        self._sidecar = sidecar
        self._backend = backend
        self._model = model
        self._chance = chance
        self._enough = asyncio.Event()
        self.stopped_at = 0.0
        """When SIGTERM was last sent. The kernel resets connections that the sidecar has not accepted yet: only systemd
        can keep them."""
        self.killed_at = 0.0
        """When kill -9 last cut off what was under way; infinite while that happens."""

    def works(self) -> list[Coroutine[Any, Any, None]]:
        """All that goes on until `stop`."""
        joiners = [self._join() for _ in range(JOINERS)]
        tellers = [self._tell(ROOMS[number]) for number in range(TELLERS)]
        return [*joiners, *tellers, self._change(), self._watch_the_machine()]

    def stop(self) -> None:
        """Begin nothing any more; what is under way ends by itself."""
        self._enough.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._enough.wait()

    async def _join(self) -> None:
        while not self._enough.is_set():
            room, user = somebody(self._chance)
            sent_at = time.monotonic()
            try:
                if self._chance.random() < 0.1:
                    await self._sidecar.configures(room)
                self._model.judge(room, user, sent_at := time.monotonic(), await self._sidecar.decides(room, user))
            except NOBODY as error:
                self._not_answered(error, sent_at)
            await self._pause(self._chance.uniform(0, 2 * PAUSE))

    def _not_answered(self, error: BaseException, sent_at: float) -> None:
        refused = isinstance(error, aiohttp.ClientConnectorError)
        if refused or self.killed_at >= sent_at or 0 < self.stopped_at < sent_at + NOT_ACCEPTED:
            self._model.counts["found it down"] += 1
        else:
            self._model.defects.append(f"no answer to a join: {error!r}")

    async def _tell(self, room: str) -> None:
        """A room's events, each sent until it is acknowledged, as the module does."""
        while not self._enough.is_set():
            number = self._model.accepted[room]
            with contextlib.suppress(*NOBODY):
                filler = "x" * self._chance.choice((10, 200, 20_000))
                told = await self._sidecar.event("user-joined", room, f"{room}/{number}", number=number, filler=filler)
                self._model.counts["events not taken"] += told.status == 503
                self._model.accepted[room] += told.status == 202
                if told.status not in (202, 503):
                    self._model.defects.append(f"an event of {room}: {told}")
            await self._pause(self._chance.uniform(0, 6 * PAUSE))

    async def _change(self) -> None:
        while not self._enough.is_set():
            self._model.change(self._chance.choice(ROOMS), self._chance.choice(CHANGING))
            await self._pause(4 * PAUSE)

    async def _watch_the_machine(self) -> None:
        """On a busy machine the backend, which lives in this process, is slow, or the sidecar is."""
        while not self._enough.is_set():
            self._backend.requests.clear()  # it keeps a record of all it has seen
            begun = time.monotonic()
            with contextlib.suppress(*NOBODY):
                await self._sidecar.get("/livez")
            await asyncio.sleep(0.1)
            if time.monotonic() - begun - 0.1 > LATE:
                self._model.late()


def answer_by(backend: Backend, model: Model, spoil: Callable[[Any], Any] = lambda answer: answer) -> None:
    """Let the backend answer by the model. `spoil` makes something else of each right answer."""

    async def decision(request: Request) -> web.StreamResponse:
        invited = model.is_invited(request.room, request.body["userJid"].partition("/")[0])
        return web.json_response({"allowed": invited, "reason": None})

    async def config(request: Request) -> web.StreamResponse:
        return web.json_response({"meetingTitle": request.room})

    async def event(request: Request) -> web.StreamResponse:
        model.arrives(request.room, request.body["number"])
        return web.Response(status=202, body=b"{}")

    for endpoint, answer in (("validate-access", decision), ("room-created", config), (EVERYTHING_ELSE, event)):
        backend.on(endpoint, spoil(answer))
