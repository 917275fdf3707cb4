"""An order is carried out by the shard that has the room, wherever it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from sidecar.control.orders import Orders
from sidecar.control.shards import Shards
from sidecar.core.orders import Result, State, Verb
from sidecar.core.sealed import Sealer
from sidecar.core.selection import Change
from sidecar.errors import EngineError, EngineIncomplete, OrderRefused
from tests.unit.control.test_orders import Place, take
from tests.unit.virtual import VirtualClock, in_virtual_time

ABSENT = {"status": "absent"}
KICKED = (State.DONE, {"kicked": 1})


@dataclass
class Wire:
    """The engine, as far as orders need it; the shards hear at once what is said."""

    shards: dict[str, Shards] = field(default_factory=dict)
    """Those that listen now."""
    members: set[str] = field(default_factory=set)
    """Those that may have a room."""
    waiting: dict[str, bytes] = field(default_factory=dict)
    absent: dict[str, set[str]] = field(default_factory=dict)
    said: list[bytes] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    down: bool = False
    epoch: str = "e1"
    clock: VirtualClock = field(default_factory=VirtualClock)

    @property
    def now_ms(self) -> int:
        return round(self.clock.monotonic() * 1000)

    async def order(self, order_id: str, left_ms: int, message: bytes) -> None:
        self._reached()
        self.waiting[order_id] = message
        self.absent[order_id] = set()
        self._say(message)

    async def outcome(self, order_id: str, message: bytes, absent_at: str = "", complete_in: str = "") -> bool:
        self._reached()
        if absent_at and complete_in != self.epoch:
            raise EngineIncomplete
        if order_id not in self.waiting:
            return False
        if absent_at:
            self.absent[order_id].add(absent_at)
        if absent_at and not self.absent[order_id] >= self.members:
            return False
        self._say(message)
        return True

    async def over(self, order_id: str) -> None:
        self._reached()
        self.waiting.pop(order_id, None)

    async def first(self, name: str, value: str, lifetime_ms: int) -> str:
        self._reached()
        return self.kept.setdefault(name, value)

    async def orders(self) -> tuple[int, list[bytes]]:
        self._reached()
        return self.now_ms, list(self.waiting.values())

    def _reached(self) -> None:
        if self.down:
            raise EngineError("away")

    def _say(self, message: bytes) -> None:
        self.said.append(message)
        for name, shard in list(self.shards.items()):
            document, _ = SEALER.hear(message)
            if document["from"] != name:
                shard.heard(document, self.now_ms)


SEALER = Sealer(b"secret")


class Machine(Place):
    """One shard: a disk, a module, and one process after the other."""

    def __init__(self, name: str, wire: Wire, outcome: Any = ABSENT) -> None:
        super().__init__()
        self.name = name
        self.wire = wire
        self.module.outcome = outcome
        self.sealer = SEALER
        self.knows_all_in = wire.epoch
        wire.members.add(name)

    @property
    def in_touch(self) -> bool:
        return not self.wire.down

    @property
    def shard(self) -> str:
        return self.name

    @property
    def complete_in(self) -> str:
        return self.knows_all_in

    @property
    def engine_ms(self) -> int | None:
        return self.wire.now_ms

    def new_id(self, _: int) -> str:
        return f"{self.name}-{super().new_id(0)}"

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Orders]:
        async with super().process() as orders:
            shards = Shards(self.wire, self, orders, self.sealer, self.name, self.clock, self.facts.append)
            orders.shards = self.wire.shards[self.name] = shards
            running = asyncio.ensure_future(shards.run())
            shards.lost()
            try:
                yield orders
            finally:
                del self.wire.shards[self.name]
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def until_quiet() -> None:
    await asyncio.sleep(2.0)


@in_virtual_time
async def test_an_order_for_a_room_of_another_shard_is_carried_out_there_and_its_outcome_is_the_answer() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    async with here.process() as orders, there.process():
        result = await take(orders)
    assert (result.state, result.fields) == KICKED
    assert [order.user for order in there.module.sent] == ["ann@example.org"]
    assert [row.result.state for row in here.disk.rows.values()] == [State.DONE]
    assert not wire.waiting


@in_virtual_time
async def test_what_an_order_takes_away_is_taken_away_on_the_shard_that_carries_it_out() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    async with here.process() as orders, there.process():
        await take(orders)
    assert Change.REVOKE in [change for _, change in there.changes]


@in_virtual_time
async def test_a_room_that_is_here_is_no_business_of_other_shards() -> None:
    wire = Wire()
    here, there = Machine("here", wire, {"status": "done", "kicked": 1}), Machine("there", wire)
    async with here.process() as orders, there.process():
        result = await take(orders)
    assert (result.state, result.fields) == KICKED
    assert not wire.said


@in_virtual_time
async def test_a_room_that_no_shard_has_is_absent_and_that_is_said_once() -> None:
    wire = Wire()
    machines = [Machine(f"shard {number}", wire) for number in range(5)]
    async with AsyncExitStack() as stack:
        orders = [await stack.enter_async_context(machine.process()) for machine in machines]
        result = await take(orders[0])
        await until_quiet()
    assert result.state is State.ABSENT
    assert len(wire.said) == 2


@in_virtual_time
async def test_a_room_that_is_nowhere_is_absent_at_once_also_when_this_shard_is_the_last_to_say_so() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire)
    here.module.hangs = True
    async with here.process() as orders, there.process():
        taken = asyncio.ensure_future(take(orders))
        await until_quiet()
        orders.acknowledged(here.module.sent[0].id, ABSENT, here.module.hosts[0])
        await asyncio.sleep(0.1)
        assert taken.done()
    assert (await taken).state is State.ABSENT


@in_virtual_time
async def test_one_shard_alone_answers_about_a_room_that_is_nowhere_at_once() -> None:
    wire = Wire()
    here = Machine("here", wire)
    async with here.process() as orders:
        async with asyncio.timeout(0.1):
            assert (await take(orders)).state is State.ABSENT
            assert (await orders.who(b'{"room": "standup"}')).state is State.ABSENT
        await until_quiet()
    assert not wire.waiting


@in_virtual_time
async def test_nobody_says_that_a_room_is_nowhere_until_the_engine_knows_all_shards() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire)
    wire.epoch = "e2"
    async with here.process() as orders:
        wire.members.discard(there.name)  # the engine has forgotten it
        assert (await take(orders)).state is State.WAITING
        wire.members.add(there.name)
        here.knows_all_in = there.knows_all_in = "e2"
        async with there.process():
            await until_quiet()
            assert not orders.waiting


@in_virtual_time
async def test_a_shard_that_cannot_say_yet_that_a_room_is_nowhere_says_what_it_has_carried_out_at_once() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire)
    here.knows_all_in = "an older epoch"
    async with here.process() as orders, there.process() as others:
        nowhere = [asyncio.ensure_future(take(orders, room=f"nowhere {number}")) for number in range(5)]
        await until_quiet()
        here.module.outcome = {"status": "done", "kicked": 1}
        async with asyncio.timeout(0.1):
            assert (await take(others)).state is State.DONE
        here.knows_all_in = wire.epoch
        await until_quiet()
        assert [each.result().state for each in nowhere] == [State.ABSENT] * 5


@in_virtual_time
async def test_while_a_shard_is_away_an_order_that_no_other_one_can_carry_out_is_pending_and_it_gets_it_later() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    async with here.process() as orders:
        assert (await take(orders)).state is State.WAITING
        async with there.process():
            await until_quiet()
    assert [row.result.state for row in here.disk.rows.values()] == [State.DONE]
    assert len(there.module.sent) == 1


@in_virtual_time
async def test_an_order_that_was_taken_while_the_engine_was_away_is_carried_out_when_it_is_back() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    wire.down = True
    async with there.process():
        async with here.process() as orders:
            assert (await take(orders, key="k")).state is State.WAITING
        async with here.process() as orders:  # killed in the meantime
            wire.down = False
            await until_quiet()
            result = await take(orders, key="k")
    assert (result.state, result.fields) == KICKED
    assert len(there.module.sent) == 1


@in_virtual_time
async def test_a_shard_that_was_killed_before_it_could_say_the_outcome_says_it_after_its_start() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    async with here.process() as orders:
        async with there.process():
            there.module.hangs = True
            assert (await take(orders)).state is State.WAITING
        there.module.hangs = False
        async with there.process():
            await until_quiet()
    assert [row.result.state for row in here.disk.rows.values()] == [State.DONE]
    assert len({order.id for order in there.module.sent}) == 1


@in_virtual_time
async def test_an_outcome_that_was_missed_is_said_again_and_the_module_is_not_asked_again() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    async with there.process(), here.process() as orders:
        deaf = wire.shards.pop("here")
        assert (await take(orders)).state is State.WAITING
        wire.shards["here"] = deaf
        deaf.lost()
        await until_quiet()
        assert not orders.waiting
    assert len(there.module.sent) == 1


@in_virtual_time
async def test_orders_for_one_room_are_carried_out_in_order_on_another_shard() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done"})
    here.module.hosts = []
    wire.down = True
    async with here.process() as orders, there.process():
        for verb in (Verb.KICK, Verb.REFRESH, Verb.END):
            await take(orders, verb)
        wire.down = False
        await until_quiet()
    assert [order.verb for order in there.module.sent] == [Verb.KICK, Verb.REFRESH, Verb.END]


@in_virtual_time
async def test_two_shards_that_pass_on_orders_for_one_room_that_is_nowhere_do_not_wait_for_each_other() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire)
    async with here.process() as first, there.process() as second:
        results = await asyncio.gather(take(first), take(second, Verb.END))
    assert [result.state for result in results] == [State.ABSENT, State.ABSENT]


@in_virtual_time
async def test_the_same_order_under_one_key_to_two_shards_is_carried_out_once() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    third = Machine("third", wire)
    async with here.process() as orders, there.process(), third.process() as others:
        first = await take(orders, key="k")
        second = await take(others, key="k")
    assert (first.state, first.fields) == (second.state, second.fields) == KICKED
    assert len({order.id for order in there.module.sent}) == 1
    assert len(there.module.carried_out) == 1


@in_virtual_time
async def test_a_key_that_was_sent_with_another_order_to_another_shard_is_refused() -> None:
    wire = Wire()
    done = {"status": "done", "kicked": 1}
    here, there = Machine("here", wire, done), Machine("there", wire, done)
    async with here.process() as orders, there.process() as others:
        await take(orders, key="k")
        with pytest.raises(OrderRefused, match="another order"):
            await take(others, key="k", reason="other")
        assert not there.module.sent
        assert (await take(others, key="k")).state is State.DONE


@in_virtual_time
async def test_an_order_that_was_refused_because_too_many_wait_leaves_its_key_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    here.module.hangs = there.module.hangs = True
    monkeypatch.setattr("sidecar.control.orders.MOST_WAITING", 1)
    async with here.process() as orders, there.process() as others:
        await take(orders, Verb.END)
        with pytest.raises(OrderRefused, match="wait for a module"):
            await take(orders, key="k")
        there.module.hangs = False
        assert (await take(others, key="k", room="retro")).state is State.DONE


@in_virtual_time
async def test_without_the_engine_an_order_with_a_key_is_taken() -> None:
    wire = Wire()
    here = Machine("here", wire, {"status": "done", "kicked": 1})
    async with here.process() as orders:
        wire.down = True
        assert (await take(orders, key="k")).state is State.DONE


@in_virtual_time
async def test_the_same_order_under_one_key_to_two_shards_at_once_ends_on_both() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    there.module.hangs = True
    async with here.process() as orders, there.process() as others:
        both = [asyncio.ensure_future(take(each, key="k")) for each in (orders, others)]
        await until_quiet()
        others.acknowledged(there.module.sent[0].id, there.module.outcome, there.module.hosts[0])
        await until_quiet()
        assert all(taken.done() for taken in both)
    assert [taken.result().state for taken in both] == [State.DONE, State.DONE]
    assert not wire.waiting


@in_virtual_time
async def test_who_is_in_a_room_of_another_shard_is_answered_and_no_name_is_in_the_engine() -> None:
    wire = Wire()
    here = Machine("here", wire)
    there = Machine("there", wire, {"status": "done", "occupants": [{"nick": "Ann Example"}]})
    async with here.process() as orders, there.process():
        result = await orders.who(b'{"room": "standup"}')
        await take(orders, Verb.KICK, reason="Ann is loud")
    assert result.fields == {"occupants": [{"nick": "Ann Example"}]}
    assert len(wire.said) == 4
    assert not any(name in message for name in (b"Ann", b"ann@", b"loud") for message in wire.said)


@in_virtual_time
async def test_a_shard_whose_prosody_is_away_carries_the_order_out_when_it_is_back() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    hosts, there.module.hosts = there.module.hosts, []
    async with here.process() as orders, there.process() as others:
        assert (await take(orders)).state is State.WAITING
        there.module.hosts = hosts
        others.module_connected()
        await until_quiet()
        assert not orders.waiting
        assert not others.waiting
    assert [row.result.state for row in here.disk.rows.values()] == [State.DONE]


@in_virtual_time
async def test_an_order_that_expires_is_forgotten_by_all_and_its_backend_hears_of_it_once() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire, {"status": "done", "kicked": 1})
    there.module.hosts = []
    async with here.process() as orders, there.process() as others:
        assert (await take(orders)).state is State.WAITING
        await asyncio.sleep(orders.ttl + 2)
        assert len(here.events) == 1
        assert not there.events
        there.module.hosts = ["conference.example.org"]
        others.module_connected()
        await until_quiet()
    assert not there.module.sent
    assert not wire.waiting


@in_virtual_time
async def test_an_order_that_names_a_jid_is_absent_on_a_shard_without_that_domain() -> None:
    wire = Wire()
    here, there = Machine("here", wire), Machine("there", wire)
    for machine in (here, there):
        machine.module.knows_only_its_hosts = True
    async with here.process() as orders, there.process():
        result = await take(orders, room="standup@other.example.org")
        assert result.state is State.WAITING
        await asyncio.sleep(10)
    assert [row.result.state for row in here.disk.rows.values()] == [State.ABSENT]


@in_virtual_time
async def test_where_domains_count_as_one_all_shards_carry_out_an_order_for_their_room_of_that_name() -> None:
    wire = Wire()
    done = {"status": "done", "ended": True}
    main, visitors = Machine("main", wire, done), Machine("visitors", wire, done)
    for machine in (main, visitors):
        machine.sealer = Sealer(b"secret", ("conference.example.org", "conference.v1.example.org"))
    visitors.module.hosts = ["conference.v1.example.org"]
    async with main.process() as orders, visitors.process():
        result = await take(orders, Verb.END, room="standup@conference.example.org")
        await until_quiet()
    assert result.state is State.DONE
    assert [order.room_jid for order in visitors.module.sent] == [None]
    assert not wire.waiting


@pytest.mark.parametrize("everywhere", [True, False])
@in_virtual_time
async def test_a_forget_that_not_all_shards_can_hear_of_yet_is_pending_until_they_can(everywhere: bool) -> None:
    wire = Wire()
    here = Machine("here", wire)
    here.is_everywhere = everywhere
    async with here.process() as orders:
        result = await take(orders, Verb.FORGET, key="k")
        assert result.state is (State.DONE if everywhere else State.WAITING)
    async with here.process() as orders:
        here.is_everywhere = True
        await until_quiet()
        repeated = await take(orders, Verb.FORGET, key="k")
    assert repeated == Result(State.DONE, {"forgotten": 1})
    assert json.dumps(dict(repeated.fields))
    assert not here.module.sent
