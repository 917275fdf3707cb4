"""What goes wrong with the engine: each fault begins, lasts, and ends, on a real engine behind two proxies."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from operator import xor
from typing import Any

from redis.exceptions import RedisError

from tests.rig.engine import EngineProcess
from tests.rig.toxic import Toxic

RIGHTS = "-eval -evalsha"
"""Taken away where the sidecars' user may do too little."""


@dataclass
class Place:
    """An engine, and the way of each shard to it."""

    engine: EngineProcess
    ways: tuple[Toxic, ...]
    affected: tuple[Toxic, ...]
    """The ways on which something goes wrong."""
    stack: AsyncExitStack
    replica: EngineProcess | None = None
    kept: dict[bytes, bytes] = field(default_factory=dict)
    """A copy of its keys."""
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends what goes on. The client of the engine can take a cancellation for a failure of its own."""
    going_on: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    @asynccontextmanager
    async def start(cls, shards: int = 2) -> AsyncIterator[Place]:
        """One that is well, with a way for each shard."""
        async with AsyncExitStack() as stack:
            engine = await stack.enter_async_context(EngineProcess.start())
            ways = tuple([await stack.enter_async_context(Toxic(engine.port)) for _ in range(shards)])
            place = cls(engine, ways, ways, stack)
            try:
                yield place
            finally:
                await place.end()

    def begin(self, work: Callable[[], Awaitable[Any]], every: float = 0.2) -> None:
        """Do it again and again, until the end."""

        async def again() -> None:
            while not self.enough.is_set():
                with contextlib.suppress(RedisError, OSError):
                    await work()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await self.enough.wait()

        self.going_on.append(asyncio.create_task(again()))

    async def end(self) -> None:
        """Nothing goes on afterwards."""
        self.enough.set()
        await asyncio.gather(*self.going_on)
        self.going_on.clear()
        self.enough.clear()

    def lead(self, to: EngineProcess, *ways: Toxic) -> None:
        """These ways lead to another engine."""
        for way in ways:
            way.to = to.port
            way.cut()

    def take(self) -> EngineProcess:
        """The replica becomes the engine."""
        assert self.replica is not None
        self.engine, self.replica = self.replica, None
        return self.engine

    async def drop_clients(self) -> None:
        """End all connections at the engine."""
        await self.engine.order("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


Step = Callable[[Place], Awaitable[None]]


async def nothing(place: Place) -> None:
    """Does nothing."""


async def heal(place: Place) -> None:
    for way in place.ways:
        way.heal()


@dataclass(frozen=True)
class EngineFault:
    """`prepare` comes before anything is learned."""

    name: str
    begin: Step
    end: Step = heal
    prepare: Step = nothing
    hears: bool = False
    """While it lasts, one shard still hears within seconds what another says."""
    unheard_of: bool = False
    """The shard that learns cannot say it, and the other one is in touch and does not know that."""


def with_ways(change: Callable[[Toxic], None]) -> Step:
    """Something happens on the way of each shard."""

    async def step(place: Place) -> None:
        for way in place.affected:
            change(way)

    return step


def with_way(number: int, change: Callable[[Toxic], None]) -> Step:
    """Something happens on the way of one shard."""

    async def step(place: Place) -> None:
        change(place.ways[number])

    return step


def orders(*words: str) -> Step:
    """One command to the engine."""

    async def step(place: Place) -> None:
        await place.engine.order(*words)

    return step


def config(name: str, value: str) -> Step:
    """A setting of the engine."""
    return orders("CONFIG", "SET", name, value)


def in_turn(*steps: Step) -> Step:
    """One after the other."""

    async def step(place: Place) -> None:
        for each in steps:
            await each(place)

    return step


def set_to(**values: Any) -> Callable[[Toxic], None]:
    """These attributes of a way."""

    def change(way: Toxic) -> None:
        for name, value in values.items():
            setattr(way, name, value)

    return change


def cut(way: Toxic) -> None:
    way.refuses = True
    way.cut()


def sends(number: signal.Signals) -> Step:
    """A signal to the engine."""

    async def step(place: Place) -> None:
        place.engine.signal(number)

    return step


async def kill(place: Place) -> None:
    await place.engine.kill()


async def run(place: Place) -> None:
    await place.engine.run()


async def sleep(place: Place) -> None:
    """Longer than until the answers are taken."""
    place.begin(lambda: place.engine.order("DEBUG", "SLEEP", "13"), every=60.0)
    await asyncio.sleep(0.1)


async def wake(place: Place) -> None:
    """It cannot be broken off."""
    await place.end()
    while True:
        with contextlib.suppress(RedisError, OSError):
            await place.engine.order("PING")
            return


async def end(place: Place) -> None:
    await place.end()


async def follow(place: Place) -> None:
    """A replica, which stands still from here on."""
    place.replica = await place.stack.enter_async_context(place.engine.replica())
    place.replica.signal(signal.SIGSTOP)


async def promote(replica: EngineProcess | None) -> EngineProcess:
    assert replica is not None
    replica.signal(signal.SIGCONT)
    await replica.order("REPLICAOF", "NO", "ONE")
    return replica


async def fail_over(place: Place) -> None:
    await place.engine.kill()
    place.lead(await promote(place.take()), *place.ways)


async def split(place: Place) -> None:
    """The shard that learns stays with the old engine, which may write nothing without a replica."""
    await place.engine.order("CONFIG", "SET", "min-replicas-to-write", "1")
    place.lead(await promote(place.replica), *place.ways[1:])


async def join_again(place: Place) -> None:
    await place.engine.kill()
    place.lead(place.take(), *place.ways)


async def restore_backup(place: Place) -> None:
    """The file of `prepare` is read at the start."""
    await place.engine.kill()
    await place.engine.run()


async def copy(place: Place) -> None:
    """A copy of all keys."""
    for key in await place.engine.order("KEYS", "*"):
        if content := await place.engine.order("DUMP", key):  # else it has just expired
            place.kept[key] = content


async def put_back(place: Place) -> None:
    """The keys are again what they were in the copy, and new ones are gone; the engine goes on running."""
    for key in await place.engine.order("KEYS", "*"):
        await place.engine.order("DEL", key)
    for key, content in place.kept.items():
        await place.engine.order("RESTORE", key, 3_600_000, content, "REPLACE")


TAG = 32
DENY_TO_ALLOW = bytes(map(xor, b'["deny", ', b'["allow",'))
"""What turns the first encrypted bytes of a deny into those of an allow."""


async def lie(place: Place) -> None:
    """Every deny becomes an allow, as far as somebody can write it who has no key: the bytes that say so are changed,
    or it is replaced by the answer of another user. What was said is said again, and something that nobody said."""

    async def once() -> None:
        keys = await place.engine.order("KEYS", "*:answer:*")
        held = {key: await place.engine.order("HMGET", key, "v", "c") for key in keys}
        others = [content for verdict, content in held.values() if verdict == b"allow"]
        for number, (key, (verdict, content)) in enumerate(held.items()):
            if verdict == b"deny":
                lied = others[0] if others and number % 2 else as_allow(content)
                await place.engine.order("HSET", key, "v", "allow", "c", lied)
        for stream in await place.engine.order("KEYS", "*:stream"):
            await place.engine.order("XADD", stream, "*", "m", b"x" * 100 + b"{}", "at", "1")
            for _, said in (await place.engine.order("XRANGE", stream, "-", "+", "COUNT", 2))[1:]:
                await place.engine.order("XADD", stream, "*", "m", said[b"m"], "at", said[b"at"])

    place.begin(once)
    await asyncio.sleep(0.3)


def as_allow(deny: bytes) -> bytes:
    """A sealed deny whose header says that it is an allow; the tag is what it was."""
    end = TAG + len(DENY_TO_ALLOW)
    return deny[:TAG] + bytes(map(xor, deny[TAG:end], DENY_TO_ALLOW)) + deny[end:]


async def wrong_password(place: Place) -> None:
    await place.engine.order("CONFIG", "SET", "requirepass", "another")
    place.engine.options["password"] = "another"
    await place.drop_clients()


async def right_password(place: Place) -> None:
    await place.engine.order("CONFIG", "SET", "requirepass", "")
    del place.engine.options["password"]


FAULTS = (
    EngineFault("none", nothing, hears=True),
    EngineFault("each packet takes 50 ms longer", with_ways(set_to(delay=0.05)), hears=True),
    EngineFault("each packet takes 300 ms longer", with_ways(set_to(delay=0.3)), unheard_of=True),
    EngineFault("each packet takes up to 30 ms longer, at random", with_ways(set_to(jitter=0.03)), hears=True),
    EngineFault("connections are cut and refused", with_ways(cut)),
    EngineFault("the same, only for the shard that learns", with_way(0, cut), unheard_of=True),
    EngineFault("the same, only for the other shard", with_way(1, cut)),
    EngineFault("half-open: nothing gets through, no connection ends", with_ways(set_to(silent=True))),
    EngineFault("half-open: questions get there, answers do not", with_ways(set_to(loses_answers=True))),
    EngineFault("stopped (SIGSTOP)", sends(signal.SIGSTOP), sends(signal.SIGCONT)),
    EngineFault("busy for seconds (DEBUG SLEEP)", sleep, wake),
    EngineFault("killed, started again empty later", kill, run),
    EngineFault("killed, started again empty at once", in_turn(kill, run), hears=True),
    EngineFault("FLUSHALL", orders("FLUSHALL"), hears=True),
    EngineFault("SCRIPT FLUSH", orders("SCRIPT", "FLUSH"), hears=True),
    EngineFault("a replica that had fallen behind is promoted", fail_over, prepare=follow, hears=True),
    EngineFault("split: each shard has a primary of its own", split, join_again, prepare=follow),
    EngineFault("restored from an old backup", restore_backup, prepare=orders("SAVE"), hears=True),
    EngineFault("somebody puts old keys back while it runs", put_back, prepare=copy, hears=True),
    EngineFault(
        "somebody changes denies into allows, and writes into the stream", lie, end, hears=True
    ),
    EngineFault("another password", wrong_password, right_password),
    EngineFault(
        "the user lost the right to call scripts",
        orders("ACL", "SETUSER", "default", *RIGHTS.split()),
        orders("ACL", "SETUSER", "default", "+@all"),
    ),
    EngineFault("its memory is full", config("maxmemory", "1"), config("maxmemory", "0")),
    EngineFault(
        "it became a replica (READONLY)", orders("REPLICAOF", "127.0.0.1", "1"), orders("REPLICAOF", "NO", "ONE")
    ),
    EngineFault(
        "no replica is left (min-replicas-to-write 1)",
        config("min-replicas-to-write", "1"),
        config("min-replicas-to-write", "0"),
    ),
)  # fmt: skip
