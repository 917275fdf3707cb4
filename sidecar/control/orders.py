"""Takes orders, keeps them until they have ended, and says what became of them.

An order is on disk before it is acknowledged, and what it takes away from memory is taken away before that. It is sent
again, under the same id, whenever a module connects: the module remembers the ids that it has carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.clock import Clock
from sidecar.core.model import Endpoint, Event
from sidecar.core.orders import (
    EXPIRED,
    WAITING,
    Order,
    Result,
    State,
    Stored,
    Verb,
    Waiting,
    expiry_body,
    fingerprint,
    read_order,
    read_outcome,
    revoked,
    taken_away,
)
from sidecar.core.selection import Change, Selector
from sidecar.errors import DiskError, OrderRefused, OutboxFull
from sidecar.facts import Emit, OrderEnded, OrderTaken

ANSWER_WITHIN = 5.0
"""Seconds after which a sender hears that the order is pending."""

MOST_WAITING = 10_000
"""Orders that may wait for a module."""

TICK = 1.0
"""Seconds between two looks for orders that have expired, or that could not be sent."""


class OrderStore(Protocol):
    """What orders need of the disk; everything raises DiskError."""

    async def add(self, stored: Stored) -> None:
        """Write an order, synced."""
        ...

    async def end(self, order_id: str, result: Result) -> None:
        """Write what became of an order."""
        ...

    async def find(self, key: str) -> Stored | None:
        """The order that was sent with this idempotency key."""
        ...

    async def waiting(self) -> list[Stored]:
        """The orders that wait, oldest first."""
        ...


class Memory(Protocol):
    """The remembered answers."""

    async def purge(self, selector: Selector, change: Change = Change.DROP) -> int:
        """Change what is meant, in memory and on disk; returns how many answers. Raises DiskError."""
        ...


class Modules(Protocol):
    """The modules in Prosody: who is connected, and how an order gets there."""

    def connected(self) -> list[str]:
        """The hosts (MUC components) whose modules are connected now."""
        ...

    def send(self, order: Order) -> bool:
        """Send an order to every connected module that may have the room. False: to none; then it is sent again a
        moment later. Never waits and never raises."""
        ...


Accept = Callable[[Event], Awaitable[None]]
"""Brings an event to the outbox; raises OutboxFull or DiskError."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """An order of this process, and who waits for its end."""

    order: Order
    key: str | None
    fingerprint: str
    taken_at: float
    result: asyncio.Future[Result]


class Orders:
    """The engine. `run` must run beside it."""

    def __init__(
        self,
        store: OrderStore,
        memory: Memory,
        modules: Modules,
        accept: Accept,
        clock: Clock,
        new_id: Callable[[int], str],
        emit: Emit,
        *,
        ttl: float = 300.0,
    ) -> None:
        """`new_id(n)` returns n random bytes in hex; `ttl`: seconds after which an order is given up."""
        self.ttl = ttl
        self.modules = modules
        self._store = store
        self._memory = memory
        self._accept = accept
        self._clock = clock
        self._new_id = new_id
        self._emit = emit
        self._waiting = Waiting()
        self._questions = Waiting()
        self._tickets: dict[str, _Ticket] = {}
        self._by_key: dict[str, _Ticket] = {}
        self._unsent: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._loaded = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Orders that no module has carried out yet."""
        return len(self._waiting)

    # ---- for senders

    async def take(self, verb: Verb, body: bytes, key: str | None, sender: str) -> Result:
        """Take an order; returns when it has ended, or as waiting when a module does not carry it out in time.

        Raises Malformed, OrderRefused, or DiskError: then it is not taken, and can be sent again.
        """
        order = read_order(verb, body, self._new_id(16), self._clock.wall())
        ticket = self._by_key.get(key) if key is not None else None
        if ticket is None:
            ticket = self._new_ticket(order, key)
            try:
                await self._begin(ticket, sender)
            except BaseException as error:
                self._forget(ticket)
                if not ticket.result.done():  # others may have sent the same in the meantime
                    ticket.result.set_exception(error if isinstance(error, Exception) else DiskError("stopped"))
                    ticket.result.exception()
                raise
        elif ticket.fingerprint != fingerprint(order):
            raise _key_reused()
        return await self._within(ticket.result)

    async def who(self, room: bytes) -> Result:
        """Who is in a room. `room`: a body that names it. Raises Malformed; OrderRefused without a module."""
        order = read_order(Verb.WHO, room, self._new_id(16), self._clock.wall())
        if not self.modules.connected():
            raise OrderRefused(503, "no module of Prosody is connected; try again in a moment")
        ticket = self._new_ticket(order, None)
        self._questions.add(order, 0.0)
        try:
            self.modules.send(order)
            return await self._within(ticket.result)
        finally:
            self._questions.end(order.id)
            self._forget(ticket)

    async def _within(self, result: asyncio.Future[Result]) -> Result:
        if not result.done() and self.modules.connected():
            await asyncio.wait([result], timeout=ANSWER_WITHIN)
        return result.result() if result.done() else WAITING

    async def _begin(self, ticket: _Ticket, sender: str) -> None:
        """From a well-formed order to one that is on disk and sent."""
        order, key = ticket.order, ticket.key
        await self._until_loaded()
        known = None if key is None else await self._store.find(key)
        if known is not None:
            if known.fingerprint != ticket.fingerprint:
                raise _key_reused()
            self._forget(ticket)
            ticket.result.set_result(known.result)
            return
        if len(self._waiting) >= MOST_WAITING:
            raise OrderRefused(503, f"{MOST_WAITING} orders wait for a module; send it again later")
        changed = await self._take_away(taken_away(order))
        result = Result(State.DONE, {"forgotten": changed}) if order.verb is Verb.FORGET else WAITING
        await self._store.add(Stored(order, key, ticket.fingerprint, result))
        self._emit(OrderTaken(order.id, order.verb, order.room or "", sender))
        if result is WAITING:
            self._let_wait(ticket, self._clock.monotonic() + self.ttl)
        else:
            self._conclude(ticket, result)

    async def _take_away(self, changes: Iterable[tuple[Selector, Change]]) -> int:
        return sum(await asyncio.gather(*(self._memory.purge(selector, change) for selector, change in changes)))

    async def _until_loaded(self) -> None:
        try:
            async with asyncio.timeout(3.0):
                await self._loaded.wait()
        except TimeoutError:
            raise DiskError("the orders on disk have not been read yet") from None

    # ---- for the modules

    def module_connected(self) -> None:
        """A module can be reached now, or once more: send what waits."""
        for order in self._waiting.first():
            self._send(order)

    def acknowledged(self, order_id: str, outcome: Any, host: str = "") -> None:
        """The module of this host says what became of an order."""
        asked = self._questions if order_id in self._questions else self._waiting
        order = asked.get(order_id)
        if order is None:
            return  # it has ended: a repeat, or too late
        result = read_outcome(order.verb, outcome)
        if result.state is State.ABSENT and not asked.absent(order_id, host, set(self.modules.connected())):
            return
        if asked is self._waiting:
            self._end(order, result)
        elif not (ticket := self._tickets[order_id]).result.done():
            ticket.result.set_result(result)

    def _let_wait(self, ticket: _Ticket, expires_at: float) -> None:
        if self._waiting.add(ticket.order, expires_at):
            self._send(ticket.order)

    def _send(self, order: Order) -> None:
        if self.modules.send(order):
            self._unsent.discard(order.id)
        else:
            self._unsent.add(order.id)

    def _end(self, order: Order, result: Result) -> None:
        """Nothing more will come of this order; the next one of its room is sent."""
        following = self._waiting.end(order.id)
        self._unsent.discard(order.id)
        if following is not None:
            self._send(following)
        task = asyncio.get_running_loop().create_task(self._write_end(self._tickets[order.id], result))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _write_end(self, ticket: _Ticket, result: Result) -> None:
        """A user who was put out by nick is taken out of memory too, before anybody hears of it."""
        order = ticket.order
        with contextlib.suppress(DiskError):  # said by the store; the order is sent again, and has the same outcome
            await self._take_away(revoked(order, user) for user in result.users)
            await self._store.end(order.id, result)
        self._conclude(ticket, result)

    def _conclude(self, ticket: _Ticket, result: Result) -> None:
        self._forget(ticket)
        if not ticket.result.done():
            ticket.result.set_result(result)
        order, seconds = ticket.order, self._clock.monotonic() - ticket.taken_at
        self._emit(OrderEnded(order.id, order.verb, order.room or "", result.state, seconds, result.error))

    def _new_ticket(self, order: Order, key: str | None) -> _Ticket:
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        ticket = _Ticket(order, key, fingerprint(order), self._clock.monotonic(), result)
        self._tickets[order.id] = ticket
        if key is not None:
            self._by_key[key] = ticket
        return ticket

    def _forget(self, ticket: _Ticket) -> None:
        self._tickets.pop(ticket.order.id, None)
        if ticket.key is not None and self._by_key.get(ticket.key) is ticket:
            del self._by_key[ticket.key]

    # ---- beside the listeners

    async def run(self) -> None:
        """Load what an earlier process left, and give up what has expired, until cancelled."""
        while not self._loaded.is_set():
            try:
                await self.load()
            except DiskError:
                await asyncio.sleep(TICK)
        while True:
            await asyncio.sleep(TICK)
            await self._tick()

    async def load(self) -> None:
        """Let the orders on disk wait again. Raises DiskError."""
        stored = await self._store.waiting()
        now, wall = self._clock.monotonic(), self._clock.wall()
        for each in stored:
            age = min(max(0.0, wall - each.order.issued), self.ttl)
            self._let_wait(self._new_ticket(each.order, each.key), now + self.ttl - age)
        self._loaded.set()

    async def stop(self) -> None:
        """Let the ends be written that are being written."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=2.0)

    async def _tick(self) -> None:
        for order in self._waiting.expired(self._clock.monotonic()):
            await self._give_up(order)
        if self._unsent and self.modules.connected():
            for order in self._waiting.first():
                if order.id in self._unsent:
                    self._send(order)

    async def _give_up(self, order: Order) -> None:
        """Only when the backend will hear of it; else it waits on, and may still be carried out."""
        wall = self._clock.wall()
        body = expiry_body(order, self._tickets[order.id].key, wall)
        event = Event(Endpoint.ORDER_EXPIRED, order.room or "", body, f"order-{order.id}", wall)
        try:
            await self._accept(event)
        except (DiskError, OutboxFull):
            return
        if order.id in self._waiting:
            self._end(order, EXPIRED)


def _key_reused() -> OrderRefused:
    return OrderRefused(
        422, "this Idempotency-Key was sent with another order; use a new key for a new order", "Idempotency-Key"
    )
