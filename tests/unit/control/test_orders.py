"""Orders are kept until they have ended, are carried out once, and are in order within a room."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sidecar.control.orders import ANSWER_WITHIN, Orders
from sidecar.core.model import Event
from sidecar.core.orders import Order, Result, State, Stored, Verb
from sidecar.core.selection import Change, Selector
from sidecar.errors import DiskError, OrderRefused, OutboxFull
from sidecar.facts import Fact, OrderEnded, OrderTaken
from tests.unit.harness import settled
from tests.unit.virtual import VirtualClock, in_virtual_time

KICK = {"room": "standup", "user": "ann@example.org"}
DONE = {"status": "done", "kicked": 1}


class Disk:
    """Remembers orders; outlives a process."""

    def __init__(self) -> None:
        self.rows: dict[str, Stored] = {}
        self.fails = False

    async def add(self, stored: Stored) -> None:
        if self.fails:
            raise DiskError("full")
        self.rows[stored.order.id] = stored

    async def end(self, order_id: str, result: Result) -> None:
        row = self.rows[order_id]
        self.rows[order_id] = Stored(row.order, row.key, row.fingerprint, result)

    async def find(self, key: str) -> Stored | None:
        return next((row for row in self.rows.values() if row.key == key), None)

    async def waiting(self) -> list[Stored]:
        return [row for row in self.rows.values() if row.result.state is State.WAITING]


class Module:
    """A module that remembers the ids which it has carried out, as the real one does."""

    def __init__(self, outcome: Any = DONE) -> None:
        self.outcome = outcome
        self.hosts = ["conference.example.org"]
        self.sent: list[Order] = []
        self.carried_out: dict[str, Any] = {}
        self.hangs = False
        self.knows_only_its_hosts = False
        """As with a real link, an order for another host is not sent."""
        self.acknowledge: Callable[[str, Any], None] = lambda order_id, outcome: None

    def connected(self) -> list[str]:
        return self.hosts

    def send(self, order: Order) -> bool:
        if not self.hosts or (self.knows_only_its_hosts and order.host not in (None, *self.hosts)):
            return False
        self.sent.append(order)
        if not self.hangs:
            outcome = self.carried_out.setdefault(order.id, self.outcome)
            asyncio.get_running_loop().call_soon(self.acknowledge, order.id, outcome)
        return True


class Place:
    """One machine: a disk, a module, an outbox, and one process after the other."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.module = Module()
        self.events: list[Event] = []
        self.outbox_full = False
        self.facts: list[Fact] = []
        self.changes: list[tuple[Selector, Change]] = []
        self.ids = 0
        self.clock = VirtualClock()
        self.is_everywhere = True

    async def purge(self, selector: Selector, change: Change = Change.DROP) -> int:
        self.changes.append((selector, change))
        return 1

    async def purge_here(self, selector: Selector, change: Change) -> int:
        return await self.purge(selector, change)

    @property
    def everywhere(self) -> bool:
        return self.is_everywhere

    async def accept(self, event: Event) -> None:
        if self.outbox_full:
            raise OutboxFull("full")
        self.events.append(event)

    def new_id(self, _: int) -> str:
        self.ids += 1
        return f"order-{self.ids}"

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Orders]:
        """A sidecar; it is killed at the end of the block."""
        orders = Orders(self.disk, self, self.module, self.accept, self.clock, self.new_id, self.facts.append)
        self.module.acknowledge = orders.acknowledged
        running = asyncio.ensure_future(orders.run())
        try:
            yield orders
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def take(orders: Orders, verb: Verb = Verb.KICK, key: str | None = None, **fields: Any) -> Result:
    body = {**(KICK if verb is Verb.KICK else {"room": "standup"}), **fields}
    return await orders.take(verb, json.dumps(body).encode(), key, "key 1")


@in_virtual_time
async def test_an_order_is_done_when_the_module_says_so_and_is_on_disk_before_it_is_sent() -> None:
    place = Place()
    async with place.process() as orders:
        result = await take(orders)
    assert (result.state, result.fields) == (State.DONE, {"kicked": 1})
    assert [fact.sender for fact in place.facts if isinstance(fact, OrderTaken)] == ["key 1"]
    assert [fact.result for fact in place.facts if isinstance(fact, OrderEnded)] == ["done"]
    assert (
        Selector("standup", "ann@example.org", endpoint=place.changes[0][0].endpoint),
        Change.REVOKE,
    ) in place.changes


@in_virtual_time
async def test_an_order_that_is_not_on_disk_is_not_taken() -> None:
    place = Place()
    place.disk.fails = True
    async with place.process() as orders:
        with pytest.raises(DiskError):
            await take(orders, key="k")
        assert place.module.sent == []
        place.disk.fails = False
        assert (await take(orders, key="k")).state is State.DONE


@in_virtual_time
async def test_the_same_order_sent_twice_is_carried_out_once() -> None:
    place = Place()
    async with place.process() as orders:
        both = await asyncio.gather(take(orders, key="k"), take(orders, key="k"))
        later = await take(orders, key="k")
    assert {result.state for result in (*both, later)} == {State.DONE}
    assert len(place.module.sent) == 1


@in_virtual_time
async def test_a_key_that_was_used_for_another_order_is_refused() -> None:
    place = Place()
    async with place.process() as orders:
        await take(orders, key="k")
        with pytest.raises(OrderRefused, match="another order"):
            await take(orders, key="k", reason="other")


@in_virtual_time
async def test_without_a_module_the_order_is_pending_at_once_and_is_carried_out_when_one_connects() -> None:
    place = Place()
    place.module.hosts = []
    async with place.process() as orders:
        begun = place.clock.monotonic()
        assert (await take(orders, key="k")).state is State.WAITING
        assert place.clock.monotonic() - begun < 0.1
        place.module.hosts = ["conference.example.org"]
        orders.module_connected()
        await settled()
        assert (await take(orders, key="k")).state is State.DONE
    assert len(place.module.sent) == 1


@in_virtual_time
async def test_a_module_that_does_not_answer_leaves_the_order_pending_after_five_seconds() -> None:
    place = Place()
    place.module.hangs = True
    async with place.process() as orders:
        begun = place.clock.monotonic()
        assert (await take(orders)).state is State.WAITING
        assert place.clock.monotonic() - begun == pytest.approx(ANSWER_WITHIN, abs=0.01)


@in_virtual_time
async def test_a_link_that_is_cut_before_the_outcome_arrives_does_not_lose_or_double_the_order() -> None:
    place = Place()
    place.module.acknowledge = lambda *_: None
    async with place.process() as orders:
        place.module.acknowledge = lambda *_: None  # the module carries it out, and the link breaks
        waiting = asyncio.ensure_future(take(orders))
        await settled()
        place.module.acknowledge = orders.acknowledged
        orders.module_connected()
        assert (await waiting).state is State.DONE
    assert [order.id for order in place.module.sent] == ["order-1", "order-1"]
    assert list(place.module.carried_out) == ["order-1"]


@in_virtual_time
async def test_a_process_that_is_killed_before_the_outcome_sends_the_order_again_at_its_next_start() -> None:
    place = Place()
    place.module.hangs = True
    async with place.process() as orders:
        sender = asyncio.ensure_future(take(orders, key="k"))
        await settled()
        sender.cancel()
    place.module.hangs = False
    async with place.process() as orders:
        await settled()
        assert (await take(orders, key="k")).state is State.DONE
    assert {order.id for order in place.module.sent} == {"order-1"}


@in_virtual_time
async def test_a_process_that_is_killed_after_the_outcome_answers_a_repeat_with_it() -> None:
    place = Place()
    async with place.process() as orders:
        await take(orders, key="k")
    place.module.outcome = {"status": "failed", "error": "carried out twice"}
    async with place.process() as orders:
        assert (await take(orders, key="k")).fields == {"kicked": 1}
    assert len(place.module.sent) == 1


@in_virtual_time
async def test_an_order_that_nobody_carries_out_is_given_up_and_the_backend_hears_of_it() -> None:
    place = Place()
    place.module.hosts = []
    async with place.process() as orders:
        await take(orders, key="k", reason="Enough")
        await asyncio.sleep(299)
        assert place.events == []
        await asyncio.sleep(2.5)
        assert orders.waiting == 0
        assert (await take(orders, key="k", reason="Enough")).state is State.EXPIRED
    (event,) = place.events
    said = json.loads(event.body)
    assert (event.endpoint, event.room, said["verb"], said["idempotencyKey"]) == (
        "order-expired",
        "standup",
        "kick",
        "k",
    )


@in_virtual_time
async def test_an_order_is_not_given_up_before_the_outbox_has_the_event() -> None:
    place = Place()
    place.module.hosts = []
    place.outbox_full = True
    async with place.process() as orders:
        await take(orders)
        await asyncio.sleep(310)
        assert orders.waiting == 1
        place.outbox_full = False
        await asyncio.sleep(2)
        assert (orders.waiting, len(place.events)) == (0, 1)


@in_virtual_time
async def test_the_time_of_an_order_goes_on_while_no_process_runs() -> None:
    place = Place()
    place.module.hosts = []
    async with place.process() as orders:
        await take(orders)
    await asyncio.sleep(290)
    async with place.process() as orders:
        await asyncio.sleep(8)
        assert orders.waiting == 1
        await asyncio.sleep(5)
        assert orders.waiting == 0


@in_virtual_time
async def test_orders_for_one_room_wait_for_each_other_and_those_for_others_do_not() -> None:
    place = Place()
    place.module.hangs = True
    async with place.process() as orders:
        senders = []
        for verb, room in ((Verb.REFRESH, "a"), (Verb.END, "a"), (Verb.END, "b")):
            senders.append(asyncio.ensure_future(take(orders, verb, room=room)))
            await settled()
        assert [(order.verb, order.room) for order in place.module.sent] == [("refresh", "a"), ("end", "b")]
        orders.acknowledged(place.module.sent[0].id, {"status": "absent"})
        assert [(order.verb, order.room) for order in place.module.sent][2:] == [("end", "a")]
        for order in place.module.sent[1:]:
            orders.acknowledged(order.id, {"status": "done"})
        assert [result.state for result in await asyncio.gather(*senders)] == ["absent", "done", "done"]


@in_virtual_time
async def test_who_was_put_out_by_nick_is_taken_out_of_memory_before_the_sender_hears_of_it() -> None:
    place = Place()
    place.module.outcome = {**DONE, "users": ["ann@example.org"]}
    async with place.process() as orders:
        await take(orders, user=None, nick="Ann")
    assert [(selector.subject, change) for selector, change in place.changes] == [
        (None, Change.SUSPECT),
        ("ann@example.org", Change.REVOKE),
    ]


@in_virtual_time
async def test_forget_needs_no_module_and_is_answered_the_same_when_it_is_repeated() -> None:
    place = Place()
    place.module.hosts = []
    async with place.process() as orders:
        results = [await take(orders, Verb.FORGET, key="k") for _ in range(2)]
    assert [result.fields for result in results] == [{"forgotten": 1}] * 2
    assert len(place.changes) == 1


@in_virtual_time
async def test_who_is_in_is_asked_now_or_not_at_all() -> None:
    place = Place()
    place.module.outcome = {"status": "done", "occupants": [{"nick": "Ann"}]}
    async with place.process() as orders:
        result = await orders.who(b'{"room": "standup"}')
        assert result.fields == {"occupants": [{"nick": "Ann"}]}
        place.module.hosts = []
        with pytest.raises(OrderRefused, match="no module"):
            await orders.who(b'{"room": "standup"}')
    assert place.disk.rows == {}


@in_virtual_time
async def test_ten_thousand_orders_leave_nothing_behind() -> None:
    place = Place()
    async with place.process() as orders:
        for number in range(10_000):
            await take(orders, key=f"k-{number}", room=f"room-{number % 50}")
        left = (orders._tickets, orders._by_key, orders._unsent, orders._ending, orders._waiting._by_room)
        assert (orders.waiting, *map(len, left)) == (0, 0, 0, 0, 0, 0)


@in_virtual_time
async def test_an_outcome_for_an_order_that_nobody_knows_changes_nothing() -> None:
    place = Place()
    async with place.process() as orders:
        orders.acknowledged("stranger", DONE)
        assert (await take(orders)).state is State.DONE
