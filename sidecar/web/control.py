"""The control listener: the orders of the meeting service. The admin socket has the same paths, for operators.

POST /control/v1/forget /control/v1/kick /control/v1/end /control/v1/refresh     GET /control/v1/rooms/{room}

request -> who sends it (keys.py, or the user of this machine) -> order -> 200, 202 pending, 404, or a problem
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from aiohttp import web
from aiohttp.typedefs import Handler

from sidecar.core.orders import Result, State, Verb
from sidecar.core.wire import Malformed
from sidecar.errors import DiskError, OrderRefused
from sidecar.facts import Crashed, Emit
from sidecar.web.requests import check_head, read_body
from sidecar.web.responses import PROBLEM, Problem, document_of

PATH = "/control/v1"


class Sender(NamedTuple):
    """Who sends an order, for the log; and the key under which a repeat is known."""

    name: str
    idempotency_key: str | None = None
    body: bytes | None = None
    """What was read to check a signature; None: the body has not been read."""


Identify = Callable[[web.Request], Awaitable[Sender]]
"""Says who sends a request; raises Problem if nobody may know."""


class Orders(Protocol):
    """The engine, as far as this file needs it. Both raise Malformed and OrderRefused."""

    async def take(self, verb: Verb, body: bytes, key: str | None, sender: str) -> Result:
        """Take an order. Raises DiskError too."""
        ...

    async def who(self, room: bytes) -> Result:
        """Who is in a room."""
        ...


class Control:
    """The handlers."""

    def __init__(self, orders: Orders, emit: Emit) -> None:
        """`orders` is the engine."""
        self._orders = orders
        self._emit = emit

    def routes(self, identify: Identify) -> list[web.RouteDef]:
        """All paths, for senders that `identify` knows."""
        posts = [
            web.post(f"{PATH}/{verb}", self._answered(self._order(verb, identify)))
            for verb in Verb
            if verb is not Verb.WHO
        ]
        return [*posts, web.get(f"{PATH}/rooms/{{room}}", self._answered(self._who(identify)), allow_head=False)]

    def app(self, identify: Identify) -> web.Application:
        """The application of the control listener."""

        @web.middleware
        async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPException as error:  # there is no such path, or not with this method
                return _problem(
                    Problem(
                        error.status,
                        f"{error.reason}; the paths are {PATH}/{{forget,kick,end,refresh}} and {PATH}/rooms/ROOM",
                    )
                )

        app = web.Application(middlewares=[problems])
        app.add_routes(self.routes(identify))
        return app

    def _order(self, verb: Verb, identify: Identify) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            check_head(request)
            sender = await identify(request)
            body = await read_body(request) if sender.body is None else sender.body
            result = await self._orders.take(verb, body, sender.idempotency_key, sender.name)
            return _response(result)

        return handle

    def _who(self, identify: Identify) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            await identify(request)
            room = request.match_info["room"]
            result = await self._orders.who(json.dumps({"room": room}).encode())
            if result.state is State.WAITING:
                raise Problem(503, "the module has not answered in time; try again", Retry_After="1")
            return _response(result)

        return handle

    def _answered(self, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except Problem as problem:
                return _problem(problem)
            except Malformed as error:
                return _problem(Problem(400, str(error), field=error.field))
            except OrderRefused as error:
                return _problem(Problem(error.status, str(error), field=error.field))
            except DiskError as error:
                return _problem(Problem(503, f"the order was not taken, send it again: {error}", Retry_After="5"))
            except Exception as error:  # noqa: BLE001 - a defect of ours must not end as a dropped connection
                self._emit(Crashed("control", error))
                return _problem(Problem(500, "this is a defect of the sidecar; its log says more"))

        return handle


async def local_user(request: web.Request) -> Sender:
    """The user at the other end of the admin socket. Its mode says who may connect."""
    opened: Any = None if request.transport is None else request.transport.get_extra_info("socket")
    if opened is None or opened.family != socket.AF_UNIX:
        return Sender("the admin token")
    _, user, _ = struct.unpack("3i", opened.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return Sender(f"user {user} of this machine")


def _response(result: Result) -> web.Response:
    match result.state:
        case State.DONE:
            return web.json_response(dict(result.fields))
        case State.WAITING:
            return web.json_response({"pending": True}, status=202)
        case State.ABSENT:
            return _problem(Problem(404, result.error or "no such room is open, or no such user is in it"))
        case State.EXPIRED:
            return _problem(Problem(410, "no module carried out this order in time; it was given up"))
        case State.FAILED:
            return _problem(Problem(502, f"the module could not carry it out: {result.error}"))


def _problem(problem: Problem) -> web.Response:
    headers = {name: value for name, value in problem.headers.items() if name != "Connection"}
    response = web.Response(
        status=problem.status, body=document_of(problem), headers={"Content-Type": PROBLEM, **headers}
    )
    if "Connection" in problem.headers:
        response.force_close()
    return response
