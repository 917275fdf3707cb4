"""The admin listener: health, metrics, status, explanations, purges, and the outbox.

GET  /livez /readyz /metrics /status /explain?room=R[&user=U] /outbox
POST /purge /outbox/retry /outbox/drop          JSON in, JSON out
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aiohttp import web

from sidecar.clock import Clock
from sidecar.core.breaker import Permit
from sidecar.core.events import Listed, Numbers
from sidecar.core.model import ANSWERS, Endpoint, Key, jid_subject
from sidecar.core.selection import Selector, named
from sidecar.decisions.explain import explain
from sidecar.decisions.resolver import Resolver
from sidecar.errors import DiskError

Json = dict[str, Any]

EXPLAINED = 50
"""Keys of one room that an explanation lists at the most."""


class Guard(Protocol):
    """The guard of one endpoint, as far as the status shows it."""

    @property
    def calls_under_way(self) -> int:
        """Calls that hold a place now."""
        ...

    @property
    def calls_waiting(self) -> int:
        """Calls that wait for a place."""
        ...

    def permit(self, now: float, room: str) -> Permit:
        """What the breaker would let a question of this room do."""
        ...


class Health(Protocol):
    """The health of the sidecar."""

    serving: bool
    """False only while starting or stopping."""

    def reasons(self) -> list[str]:
        """Why the sidecar is degraded; empty if it is not."""
        ...

    def notes(self) -> list[str]:
        """What does no harm now, but an operator should know before it does."""
        ...


class OutboxDesk(Protocol):
    """The outbox, as far as operators use it; what reads or writes the disk raises DiskError."""

    def pending(self) -> int:
        """Events that wait."""
        ...

    def parked(self) -> int:
        """Events that the backend has refused for good."""
        ...

    def oldest_age(self) -> float:
        """Seconds since the oldest waiting event was accepted."""
        ...

    async def listing(self, *, parked: bool, after: int = 0, most: int = 100) -> list[Listed]:
        """Events in the order of acceptance."""
        ...

    async def retry(self, numbers: Numbers) -> int:
        """Let parked events be delivered again."""
        ...

    async def drop(self, numbers: Numbers, *, parked: bool = True) -> int:
        """Delete events."""
        ...


class Admin:
    """The handlers of the admin listener."""

    def __init__(
        self,
        resolver: Resolver,
        guards: Mapping[Endpoint, Guard],
        outbox: OutboxDesk,
        health: Health,
        expose: Callable[[], bytes],
        facts: Callable[[], Json],
        clock: Clock,
    ) -> None:
        """`facts` returns what only the daemon knows, for the status; `expose` returns the metrics as text."""
        self._resolver = resolver
        self._guards = guards
        self._outbox = outbox
        self._health = health
        self._expose = expose
        self._facts = facts
        self._clock = clock

    def app(self) -> web.Application:
        """The application of the admin listener."""
        app = web.Application(client_max_size=64 * 1024, middlewares=[_errors_as_json])
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/status", self._status),
                web.get("/explain", self._explain),
                web.post("/purge", self._purge),
                web.get("/outbox", self._outbox_list),
                web.post("/outbox/retry", self._outbox_retry),
                web.post("/outbox/drop", self._outbox_drop),
            ]
        )
        return app

    async def _livez(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readyz(self, _: web.Request) -> web.Response:
        """503 only while starting or stopping, because a degraded sidecar still answers every join."""
        if not self._health.serving:
            return web.json_response({"status": "not ready", "reasons": ["starting or stopping"]}, status=503)
        reasons, notes = self._health.reasons(), self._health.notes()
        return web.json_response({"status": "degraded" if reasons else "ready", "reasons": reasons, "notes": notes})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._expose(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _status(self, _: web.Request) -> web.Response:
        now = self._clock.monotonic()
        cache = self._resolver.cache
        endpoints = {
            str(endpoint): {
                "breaker": guard.permit(now, "").value,
                "calls_under_way": guard.calls_under_way,
                "calls_waiting": guard.calls_waiting,
            }
            for endpoint, guard in self._guards.items()
        }
        return web.json_response(
            {
                "serving": self._health.serving,
                "reasons": self._health.reasons(),
                "notes": self._health.notes(),
                **self._facts(),
                "endpoints": endpoints,
                "cache": {verdict.value: cache.count(verdict) for verdict in ANSWERS},
                "outbox": self._counts(),
            }
        )

    async def _explain(self, request: web.Request) -> web.Response:
        room, user = request.query.get("room"), request.query.get("user")
        if not room:
            raise web.HTTPBadRequest(text="explain needs ?room=NAME, and takes &user=JID, user id or guest")
        now = self._clock.monotonic()
        keys = [key for key, _ in self._resolver.cache.items() if key.room == room and _is_of(key, user)]
        shown = keys[:EXPLAINED]
        asked = Endpoint.VALIDATE_ACCESS if user else Endpoint.ROOM_CREATED
        if not any(key.endpoint is asked for key in keys):
            shown.append(Key(asked, room, subject=jid_subject(user) if user else None))
        explained = [dataclasses.asdict(explain(key, self._resolver.preview(key), now)) for key in shown]
        return web.json_response({"room": room, "answers": explained, "left_out": max(0, len(keys) - EXPLAINED)})

    async def _purge(self, request: web.Request) -> web.Response:
        order = await _order(request, {"room", "user", "all"})
        room, user = order.get("room"), order.get("user")
        if order.get("all") is True:
            selector = Selector()
        elif room or user:
            selector = Selector(room or None, user or None)
        else:
            raise web.HTTPBadRequest(text="purge needs a room, a user, or all: true")
        purged = await self._resolver.purge(selector)
        return web.json_response({"purged": purged, **({} if self._resolver.everywhere else {"pending": True})})

    def _counts(self) -> Json:
        outbox = self._outbox
        return {
            "pending": outbox.pending(),
            "oldest_seconds": round(outbox.oldest_age(), 1),
            "parked": outbox.parked(),
        }

    async def _outbox_list(self, request: web.Request) -> web.Response:
        most = min(int(request.query.get("limit", "100")), 10_000)
        lists = {
            name: [dataclasses.asdict(each) for each in await self._outbox.listing(parked=parked, most=most)]
            for name, parked in (("parked", True), ("waiting", False))
        }
        return web.json_response({"counts": self._counts(), **lists})

    async def _outbox_retry(self, request: web.Request) -> web.Response:
        numbers, _ = await _selected_events(request)
        return web.json_response({"retried": await self._outbox.retry(numbers)})

    async def _outbox_drop(self, request: web.Request) -> web.Response:
        numbers, parked = await _selected_events(request)
        return web.json_response({"dropped": await self._outbox.drop(numbers, parked=parked)})


@web.middleware
async def _errors_as_json(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Every error becomes a JSON object with one sentence."""
    try:
        response: web.StreamResponse = await handler(request)
    except web.HTTPError as error:
        return web.json_response({"status": error.status, "detail": error.text}, status=error.status)
    except (ValueError, DiskError) as error:
        status = 503 if isinstance(error, DiskError) else 400
        return web.json_response({"status": status, "detail": str(error)}, status=status)
    return response


async def _order(request: web.Request, known: set[str]) -> Json:
    # This keeps a web page in the operator's browser from sending orders: JSON across origins needs our permission.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="send Content-Type: application/json")
    try:
        order = json.loads(await request.text())
    except ValueError as error:
        raise web.HTTPBadRequest(text=f"the body is not JSON: {error}") from None
    if not isinstance(order, dict) or not set(order) <= known:
        raise web.HTTPBadRequest(text=f"expected a JSON object with {', '.join(sorted(known))}")
    return order


async def _selected_events(request: web.Request) -> tuple[list[int] | None, bool]:
    """The numbers in an order (None: all), and whether they are of parked events."""
    order = await _order(request, {"numbers", "all", "waiting"})
    numbers, parked = order.get("numbers"), order.get("waiting") is not True
    if order.get("all") is True and numbers is None:
        return None, parked
    if not isinstance(numbers, list) or not numbers or not all(type(each) is int for each in numbers):
        raise web.HTTPBadRequest(text="expected numbers: [those that `outbox list` shows], or all: true")
    return numbers, parked


def _is_of(key: Key, user: str | None) -> bool:
    """Whether the key is about this user; None: about any."""
    return user is None or (key.subject is not None and named(key.subject, user))
