"""Takes orders, keeps them until they have ended, and says what became of them.

An order is on disk before it is acknowledged, and what it takes away from memory is taken away before that. It is sent
again, under the same id, whenever a module connects: the module remembers the ids that it has carried out.

Where several sidecars share a memory, an order for a room that is not here is passed on (shards.py), and orders of the
others wait here in the same queues, so that they are in order with those of this sidecar.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any

from sidecar.clock import Clock, until_next
from sidecar.control.needs import Accept, Memory, Modules, OrderStore, Shards
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
from sidecar.core.other_shards import OfOthers, on_this_shard
from sidecar.core.selection import Change, Selector
from sidecar.errors import DiskError, OrderRefused, OutboxFull
from sidecar.facts import Emit, OrderEnded, OrderTaken

ANSWER_WITHIN = 5.0
"""Seconds after which a sender hears that the order is pending."""

MOST_WAITING = 10_000
"""Orders that may wait for a module."""

TICK = 1.0
"""Seconds between two looks for orders that have expired, or that could not be sent."""


@dataclass(slots=True, eq=False)
class _Ticket:
    """An order of this process, and who waits for its end."""

    order: Order
    key: str | None
    fingerprint: str
    taken_at: float
    expires_at: float
    result: asyncio.Future[Result]
    of_others_too: bool = False
    """Another sidecar has the same order, under the same idempotency key, and waits for its outcome."""


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
        self.shards: Shards | None = None
        self._store = store
        self._memory = memory
        self._accept = accept
        self._clock = clock
        self._new_id = new_id
        self._emit = emit
        self._waiting = Waiting()
        """For the modules of this sidecar: own orders, and those of other shards."""
        self._questions = Waiting()
        self._elsewhere = Waiting()
        """Own orders for a room that is not here."""
        self._forgotten: dict[str, Result] = {}
        """Own orders that are carried out here, and that other shards have not heard of."""
        self._of_others = OfOthers()
        self._tickets: dict[str, _Ticket] = {}
        self._by_key: dict[str, _Ticket] = {}
        self._unsent: set[str] = set()
        self._ending: set[asyncio.Future[Any]] = set()
        self._loaded = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Orders that no module has carried out yet."""
        of_others = sum(each in self._waiting for each in self._of_others)
        return len(self._waiting) - of_others + len(self._elsewhere) + len(self._forgotten)

    # ---- for senders

    async def take(self, verb: Verb, body: bytes, key: str | None, sender: str) -> Result:
        """Take an order; returns when it has ended, or as waiting when a module does not carry it out in time.

        Raises Malformed, OrderRefused, or DiskError: then it is not taken, and can be sent again.
        """
        order = read_order(verb, body, self._new_id(16), self._clock.wall())
        if key is not None and self.shards is not None:
            order = replace(order, id=self.shards.id_for(key, fingerprint(order)))
        ticket = self._by_key.get(key) if key is not None else None
        if ticket is None:
            ticket = self._new_ticket(order, key, self._clock.monotonic() + self.ttl)
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
        return await self._within(ticket)

    async def who(self, room: bytes) -> Result:
        """Who is in a room. `room`: a body that names it. Raises Malformed; OrderRefused without a module."""
        order = read_order(Verb.WHO, room, self._new_id(16), self._clock.wall())
        if not self._may_end_soon(order):
            raise OrderRefused(503, "no module of Prosody is connected; try again in a moment")
        ticket = self._new_ticket(order, None, self._clock.monotonic() + ANSWER_WITHIN)
        self._questions.add(order, 0.0)
        try:
            if not self.modules.send(order) and self.shards is not None:
                self.shards.pass_on(order, ticket.expires_at)
            return await self._within(ticket)
        finally:
            self._questions.end(order.id)
            self._forget(ticket)
            if self.shards is not None:
                self.shards.over(order.id)

    async def _within(self, ticket: _Ticket) -> Result:
        result = ticket.result
        if not result.done() and self._may_end_soon(ticket.order):
            await asyncio.wait([result], timeout=ANSWER_WITHIN)
        return result.result() if result.done() else WAITING

    def _may_end_soon(self, order: Order) -> bool:
        if order.verb is Verb.FORGET:  # other shards were waited for already
            return False
        return bool(self.modules.connected()) or (self.shards is not None and self.shards.in_touch)

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
        if self.waiting >= MOST_WAITING:
            raise OrderRefused(503, f"{MOST_WAITING} orders wait for a module; send it again later")
        if key is not None and self.shards is not None and await self.shards.first_with(key, order.id) != order.id:
            raise _key_reused()
        changed = await self._take_away(taken_away(order))
        result = WAITING
        if order.verb is Verb.FORGET:
            result = Result(State.DONE if self._memory.everywhere else State.WAITING, {"forgotten": changed})
        await self._store.add(Stored(order, key, ticket.fingerprint, result))
        self._emit(OrderTaken(order.id, order.verb, order.room or "", sender))
        if result.state is State.WAITING:
            self._let_wait(ticket, result)
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
        if result.state is not State.ABSENT or asked.absent(order_id, host, set(self.modules.connected())):
            self._ended_here(order, result)

    def _ended_here(self, order: Order, result: Result) -> None:
        """The modules of this shard have said what they can say."""
        if order.id in self._of_others:
            self._report(order, result)
        elif result.state is State.ABSENT and self.shards is not None:
            self._not_here(order, self.shards)
        elif order.id in self._questions:
            self._reply(order, result)
        else:
            if self.shards is not None and self._tickets[order.id].of_others_too:
                self.shards.report(order.id, result)
            self._end(order, result)

    def _reply(self, question: Order, result: Result) -> None:
        if not (ticket := self._tickets[question.id]).result.done():
            ticket.result.set_result(result)

    def _let_wait(self, ticket: _Ticket, result: Result) -> None:
        order = ticket.order
        if order.verb is Verb.FORGET:
            self._forgotten[order.id] = result
            return
        self._of_others.end(order.id)  # the same order, sent to two sidecars
        if self._waiting.add(order, ticket.expires_at):
            self._send(order)
        if self.shards is not None and (self.shards.one_domain or not self.modules.connected()):
            self._pass_on(order, self.shards)

    def _send(self, order: Order) -> None:
        if self.modules.send(order):
            self._unsent.discard(order.id)
        else:
            self._unsent.add(order.id)

    def _end(self, order: Order, result: Result) -> None:
        """Nothing more will come of this order; the next one of its room is sent."""
        self._leave_queue(order)
        self._elsewhere.end(order.id)
        if self.shards is not None:
            self.shards.over(order.id)
        self._spawn(self._write_end(self._tickets[order.id], result))

    def _leave_queue(self, order: Order) -> None:
        following = self._waiting.end(order.id)
        self._unsent.discard(order.id)
        if following is not None:
            self._send(following)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
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

    def _new_ticket(self, order: Order, key: str | None, expires_at: float) -> _Ticket:
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        ticket = _Ticket(order, key, fingerprint(order), self._clock.monotonic(), expires_at, result)
        self._tickets[order.id] = ticket
        if key is not None:
            self._by_key[key] = ticket
        return ticket

    def _forget(self, ticket: _Ticket) -> None:
        self._tickets.pop(ticket.order.id, None)
        if ticket.key is not None and self._by_key.get(ticket.key) is ticket:
            del self._by_key[ticket.key]

    # ---- for other shards

    def _pass_on(self, order: Order, shards: Shards) -> None:
        """After the earlier ones of the same room, which may be there too."""
        for each in [*self._waiting.of_room(order)] or [order]:
            if (ticket := self._tickets.get(each.id)) is not None:
                shards.pass_on(each, ticket.expires_at)

    def _not_here(self, order: Order, shards: Shards) -> None:
        """The room of an own order is on another shard, if it is anywhere."""
        self._pass_on(order, shards)
        shards.not_here(order.id)
        if order.id in self._waiting:
            self._elsewhere.add(order, self._tickets[order.id].expires_at)
            self._leave_queue(order)

    def elsewhere(self, order_id: str, result: Result) -> None:
        """What became of an own order on other shards; absent: on none of them."""
        ticket = self._tickets.get(order_id)
        if ticket is None:
            return  # it has ended, or is of another shard
        if order_id in self._questions:
            self._reply(ticket.order, result)
        elif order_id in self._waiting or order_id in self._elsewhere:
            self._end(ticket.order, result)

    def carry_out(self, order: Order, expires_at: float) -> None:
        """Carry out an order of another shard, once, if the room is here. What it takes away is taken away before."""
        assert self.shards is not None, "only they call this"
        known = self._of_others.outcome(order.id)
        if known is not None:
            self.shards.report(order.id, known)
            return
        if (ticket := self._tickets.get(order.id)) is not None:
            ticket.of_others_too = True
            return
        if order.id in self._of_others:
            return
        order = on_this_shard(order, self.modules.connected(), self.shards.one_domain)
        self._of_others.begin(order.id, self._clock.monotonic(), expires_at)
        for selector, change in taken_away(order):
            self._spawn(_quietly(self._memory.purge_here(selector, change)))
        if order.verb is Verb.WHO:
            self._questions.add(order, expires_at)
            self.modules.send(order)
        elif self._waiting.add(order, expires_at):
            self._send(order)

    def _report(self, order: Order, result: Result) -> None:
        began_at = self._of_others.end(order.id, result)
        self._questions.end(order.id)
        self._leave_queue(order)
        self._spawn(self._say_outcome(order, result))
        if result.state is not State.ABSENT:
            seconds = self._clock.monotonic() - began_at
            self._emit(OrderEnded(order.id, order.verb, order.room or "", result.state, seconds, result.error))

    async def _say_outcome(self, order: Order, result: Result) -> None:
        assert self.shards is not None, "an order of theirs has ended"
        with contextlib.suppress(DiskError):
            await self._take_away(revoked(order, user) for user in result.users)
        self.shards.report(order.id, result)

    # ---- beside the listeners

    async def run(self) -> None:
        """Load what an earlier process left, and give up what has expired, until cancelled."""
        while not self._loaded.is_set():
            try:
                await self.load()
            except DiskError:
                await asyncio.sleep(TICK)
        while True:
            await asyncio.sleep(until_next(TICK, asyncio.get_running_loop().time()))
            await self._tick()

    async def load(self) -> None:
        """Let the orders on disk wait again. Raises DiskError."""
        stored = await self._store.waiting()
        now, wall = self._clock.monotonic(), self._clock.wall()
        for each in stored:
            age = min(max(0.0, wall - each.order.issued), self.ttl)
            self._let_wait(self._new_ticket(each.order, each.key, now + self.ttl - age), each.result)
        self._loaded.set()

    async def stop(self) -> None:
        """Let the ends be written that are being written."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=2.0)

    async def _tick(self) -> None:
        now = self._clock.monotonic()
        for order in self._expired(now):
            await self._give_up(order)
        connected = self.modules.connected()
        for order in list(self._waiting.first()):
            if connected and order.id in self._unsent:
                self._send(order)
            if self.shards is not None:
                self._look_elsewhere(order, self.shards, connected, now)
        self._of_others.tidy(now)
        if self._forgotten and self._memory.everywhere:
            for order_id, result in list(self._forgotten.items()):
                del self._forgotten[order_id]
                await self._write_end(self._tickets[order_id], replace(result, state=State.DONE))

    def _expired(self, now: float) -> list[Order]:
        """Own orders. Those of other shards are given up there, and no more wait here."""
        for order in [*self._waiting.expired(now), *self._questions.expired(now)]:
            if order.id in self._of_others:
                self._of_others.end(order.id)
                self._questions.end(order.id)
                self._leave_queue(order)
        return [*self._waiting.expired(now), *self._elsewhere.expired(now)]

    def _look_elsewhere(self, order: Order, shards: Shards, connected: Collection[str], now: float) -> None:
        """An order that has not ended here soon may be for a room of another shard."""
        ticket = self._tickets.get(order.id)
        began_at = self._of_others.began_at(order.id) if ticket is None else ticket.taken_at
        if ticket is not None and now - began_at >= TICK:
            self._pass_on(order, shards)
        if order.id in self._unsent and connected and now - began_at >= ANSWER_WITHIN:
            self._ended_here(order, Result(State.ABSENT))  # Prosody is there, without this domain

    async def _give_up(self, order: Order) -> None:
        """Only when the backend will hear of it; else it waits on, and may still be carried out."""
        wall = self._clock.wall()
        body = expiry_body(order, self._tickets[order.id].key, wall)
        event = Event(Endpoint.ORDER_EXPIRED, order.room or "", body, f"order-{order.id}", wall)
        try:
            await self._accept(event)
        except (DiskError, OutboxFull):
            return
        if order.id in self._waiting or order.id in self._elsewhere:
            self._end(order, EXPIRED)


async def _quietly(work: Awaitable[Any]) -> None:
    with contextlib.suppress(DiskError):  # said by the store; it is taken out of the file as soon as that can be done
        await work


def _key_reused() -> OrderRefused:
    return OrderRefused(
        422, "this Idempotency-Key was sent with another order; use a new key for a new order", "Idempotency-Key"
    )
