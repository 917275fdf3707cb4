"""Orders for rooms that are on other shards: passed on through the engine, and what became of them.

pass_on, not_here, over   own orders      -> queue -> engine -> the other shards
heard                     their orders    -> Orders.carry_out
report                    the outcome     -> queue -> engine -> heard -> Orders.elsewhere

Own orders are on disk already (orders.py); the queue is not. After a restart, and whenever messages may have been lost,
own orders are said again, and those of the others are read from the engine, which keeps them until they are over. An
order that is carried out again has the same id, and the module knows its outcome.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sidecar.clock import Clock
from sidecar.core.orders import Order, Result, State
from sidecar.core.other_shards import order_message, outcome_message, read_order_message, read_outcome_message
from sidecar.core.sealed import Forged, Sealer
from sidecar.errors import EngineError, EngineIncomplete
from sidecar.facts import Crashed, Emit

AGAIN = 0.5
"""Seconds between two tries to reach the engine."""

KEPT_MS = 86_400_000
"""For how long all sidecars know which order was sent with an idempotency key; as on disk (store/orders.py)."""


class Engine(Protocol):
    """What is needed of the engine; everything raises EngineError."""

    async def order(self, order_id: str, left_ms: int, message: bytes) -> None:
        """Keep an order for other shards until it is over, at most so long, and say it."""
        ...

    async def outcome(self, order_id: str, message: bytes, absent_at: str = "", complete_in: str = "") -> bool:
        """Say what became of an order; where it is `absent_at` one shard, only when it is absent at all, which only an
        epoch can know that is `complete_in` the names of shards; else it raises EngineIncomplete. Returns whether it
        is said."""
        ...

    async def over(self, order_id: str) -> None:
        """Nobody waits for this order any more."""
        ...

    async def first(self, name: str, value: str, lifetime_ms: int) -> str:
        """What was first kept under this name, for so long; `value`, if there was nothing."""
        ...

    async def orders(self) -> tuple[int, list[bytes]]:
        """The engine's clock, and the messages of the orders that wait, in the order in which they were said."""
        ...


class Shared(Protocol):
    """The shared memory of this sidecar."""

    @property
    def shard(self) -> str:
        """The name of this shard."""
        ...

    @property
    def complete_in(self) -> str:
        """The epoch of the engine that knows all shards that may have rooms; empty: nobody can say."""
        ...

    @property
    def in_touch(self) -> bool:
        """Whether this sidecar hears what the others say."""
        ...

    @property
    def engine_ms(self) -> int | None:
        """The engine's clock, as far as it is known."""
        ...


class Orders(Protocol):
    """The orders of this sidecar."""

    def carry_out(self, order: Order, expires_at: float) -> None:
        """Carry out an order of another shard here, once, if the room is here."""
        ...

    def elsewhere(self, order_id: str, result: Result) -> None:
        """What became of an own order on other shards."""
        ...


@dataclass(slots=True)
class _PassedOn:
    order: Order
    expires_at: float
    absent: bool = False
    """The modules of this shard have no such room."""


_ToWrite = tuple[str, str]
"""What is to be written, and the id of the order."""


class Shards:
    """The other shards. `run` must run beside it; but for `first_with`, nothing else here waits."""

    def __init__(
        self,
        engine: Engine,
        shared: Shared,
        orders: Orders,
        sealer: Sealer,
        member: str,
        clock: Clock,
        emit: Emit,
    ) -> None:
        """`member` names this process."""
        self._engine = engine
        self._shared = shared
        self._orders = orders
        self._sealer = sealer
        self._member = member
        self._clock = clock
        self._emit = emit
        self._passed_on: dict[str, _PassedOn] = {}
        self._to_write: OrderedDict[_ToWrite, Result | None] = OrderedDict()
        self._wake = asyncio.Event()
        self._stopping = False

    # ---- for the orders of this shard

    @property
    def in_touch(self) -> bool:
        """Whether the outcome on other shards can come at once."""
        return self._shared.in_touch

    @property
    def one_domain(self) -> tuple[str, ...]:
        """The MUC domains that count as one. With several, a room is on more than one shard at a time."""
        return self._sealer.one_domain

    def id_for(self, key: str, fingerprint: str) -> str:
        """The id of an order with this idempotency key: the same on all shards."""
        return self._sealer.digest("order", key, fingerprint)

    async def first_with(self, key: str, order_id: str) -> str:
        """The id of the order that was first sent with this idempotency key, to any sidecar; `order_id` if none was, or
        if the engine does not say."""
        if not self._shared.in_touch:
            return order_id
        try:
            return await self._engine.first(self._sealer.digest("idempotency key", key), order_id, KEPT_MS)
        except EngineError:
            return order_id

    def pass_on(self, order: Order, expires_at: float) -> None:
        """Have an order carried out where the room is, until it is `over`."""
        if order.id not in self._passed_on:
            self._passed_on[order.id] = _PassedOn(order, expires_at)
            self._put("order", order.id)

    def not_here(self, order_id: str) -> None:
        """The room of an order that was passed on is not on this shard."""
        self._passed_on[order_id].absent = True
        self._put("absent", order_id)

    def over(self, order_id: str) -> None:
        """An own order has ended. Where a room is on several shards, all have to hear of it all the same."""
        if order_id in self._passed_on:
            if not self.one_domain:
                del self._passed_on[order_id]
            self._put("over", order_id)

    def report(self, order_id: str, result: Result) -> None:
        """What became of an order of another shard here."""
        what = "absent" if result.state is State.ABSENT else "outcome"
        self._put(what, order_id, replace(result, users=()))

    # ---- for the shared memory

    def heard(self, document: dict[str, Any], now_ms: int) -> None:
        """What another shard says, at this time of the engine. Raises Forged."""
        if document.get("kind") == "outcome":
            self._orders.elsewhere(*read_outcome_message(document))
            return
        order, left = read_order_message(document, now_ms, self._clock.wall())
        if left > 0:
            self._orders.carry_out(order, self._clock.monotonic() + left)
            if (own := self._passed_on.get(order.id)) is not None and own.absent:
                self._put("absent", order.id)  # an order that is said again asks all shards again

    def lost(self) -> None:
        """Say own orders again, and look for those of the others."""
        for passed_on in self._passed_on.values():
            self._put("order", passed_on.order.id)
            if passed_on.absent:
                self._put("absent", passed_on.order.id)
        self._put("look", "")

    # ---- beside the listeners

    async def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True

    async def run(self) -> None:
        """Bring the queue to the engine, in order, until cancelled."""
        while not self._stopping:
            if not self._to_write:
                self._wake.clear()
                await self._wake.wait()
            first, result = self._to_write.popitem(last=False)
            try:
                await self._write(*first, result)
            except EngineIncomplete:  # which says nothing about other orders
                asyncio.get_running_loop().call_later(AGAIN, self._put_back, first, result)
            except EngineError:
                if first not in self._to_write:
                    self._to_write[first] = result
                    self._to_write.move_to_end(first, last=False)
                await asyncio.sleep(AGAIN)
            except Exception as error:  # noqa: BLE001 - a defect of ours must not end the other orders
                self._emit(Crashed("orders of other shards", error))

    def _put(self, what: str, order_id: str, result: Result | None = None) -> None:
        """At the end of the queue, and only there."""
        self._to_write.pop((what, order_id), None)
        self._to_write[what, order_id] = result
        self._wake.set()

    def _put_back(self, first: _ToWrite, result: Result | None) -> None:
        if first not in self._to_write:
            self._put(*first, result)

    async def _write(self, what: str, order_id: str, result: Result | None) -> None:
        match what:
            case "order":
                await self._say(order_id)
            case "absent":
                result = result or Result(State.ABSENT)
                here = self._shared.shard, self._shared.complete_in
                if await self._engine.outcome(order_id, self._outcome(order_id, result), *here):
                    self._orders.elsewhere(order_id, result)  # this sidecar was the last, and does not hear itself
            case "outcome":
                assert result is not None, "see report()"
                await self._engine.outcome(order_id, self._outcome(order_id, result))
            case "over":
                await self._engine.over(order_id)
                self._passed_on.pop(order_id, None)
            case "look":
                await self._look()

    async def _say(self, order_id: str) -> None:
        passed_on = self._passed_on.get(order_id)
        if passed_on is None:
            return  # it has ended in the meantime
        now_ms = self._shared.engine_ms
        if now_ms is None:
            raise EngineError("no contact yet")
        order = passed_on.order
        age = max(0.0, self._clock.wall() - order.issued)
        left = passed_on.expires_at - self._clock.monotonic()
        if left <= 0:
            return
        issued_ms, left_ms = now_ms - round(age * 1000), round((age + left) * 1000)
        message = order_message(order, issued_ms, left_ms, self._sealer, self._member)
        await self._engine.order(order_id, round(left * 1000), message)

    async def _look(self) -> None:
        now_ms, messages = await self._engine.orders()
        for message in messages:
            try:
                document, _ = self._sealer.hear(message)
                if document.get("from") != self._member and document.get("kind") == "order":
                    self.heard(document, now_ms)
            except Forged as error:
                self._emit(Crashed("orders of other shards", error))

    def _outcome(self, order_id: str, result: Result) -> bytes:
        return outcome_message(order_id, result, self._sealer, self._member)
