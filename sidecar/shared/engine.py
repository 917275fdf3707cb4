"""The engine: Valkey or Redis, through one script (script.lua).

Nothing is retried here, and each call has a time limit. Any failure is an EngineError. Nothing waits for the replicas:
what a promoted one lacks is said again, because it is another epoch.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import product
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from sidecar.core.contact import Batch
from sidecar.core.engine_clock import Renewal
from sidecar.core.engine_facts import Examined
from sidecar.core.fences import Fence
from sidecar.core.members import Member, Process
from sidecar.core.sealed import Found, ToKeep
from sidecar.errors import EngineError
from sidecar.shared.examination import examine

QUICK = 0.1
"""Seconds for a read; a question waits for it for a shorter time."""
SLOW = 1.0
"""Seconds for all that no question waits for."""
BLOCK = 1.0
"""Seconds a read of the stream waits for a message."""
CONNECTIONS = 16
"""Connections for questions, and as many for what is written."""
MOST = 500
"""Messages in one read of the stream."""
OPENED_FOR = 30.0
"""Seconds after which it is made sure again that all connections are open: a question waits for no handshake, and a
slow engine gets denies in time."""

SCRIPT = files("sidecar.shared").joinpath("script.lua").read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the engine is."""

    url: str = field(repr=False)
    """May hold a user and a password."""
    namespace: str = "prosody-sidecar"
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None


class Engine:
    """One engine. `nonce` gives a new random text on each call."""

    def __init__(self, place: Place, nonce: Callable[[], str]) -> None:
        """Nothing is opened yet."""
        self._place = place
        self._nonce = nonce
        self._questions = _client(place, QUICK, CONNECTIONS)
        self._stream = _client(place, SLOW + BLOCK, 1)
        self._writes = _client(place, SLOW, CONNECTIONS)
        self._sha = ""
        self._open_until = 0.0
        self.replicas = 0
        """Replicas of the engine at the last beat."""
        self.members = 0
        """Sidecars that have been there in the last ten seconds."""
        self.before = ""
        """The process that has shown itself under the name of this shard before the last beat; empty: none."""

    async def close(self) -> None:
        """Close all connections."""
        for client in (self._questions, self._stream, self._writes):
            with suppress(RedisError, OSError, TimeoutError):
                async with asyncio.timeout(SLOW):
                    await client.aclose()

    async def beat(self, position: int, shard: str, renewal: Renewal | None = None, process: str = "") -> Batch:
        """Show that this shard is there, with this process, and read the stream after `position`."""
        arguments = (position, MOST, shard, *(renewal or ("", 0)), process)
        try:
            answer = await self._call(self._stream, ["members", "processes"], "beat", *arguments)
        except EngineError:
            self._open_until = 0.0
            raise
        await self._open()
        with _errors():
            epoch, now_ms, tail, self.members, self.replicas, messages, before = answer
            self.before = before.decode()
            numbered = tuple((int(number), int(at), bytes(content)) for number, at, content in messages)
            return Batch(epoch.decode(), int(now_ms), int(tail), numbered)

    async def present(self, ages: Mapping[str, float]) -> tuple[str, list[Member]]:
        """Give the engine the names of shards that it may have forgotten, with the seconds for which they have been
        away. Returns its epoch, and all shards that may have rooms."""
        given = [word for shard, age in ages.items() for word in (shard, round(age * 1000))]
        answer = await self._call(self._writes, ["members", "processes"], "present", *given)
        with _errors():
            epoch, _, members = answer
            return epoch.decode(), [
                Member(shard.decode(), int(age_ms) / 1000, Process.of(process.decode()))
                for shard, age_ms, process in members
            ]

    async def _open(self) -> None:
        """A few connections more each time: many handshakes at once would take too long for each."""
        now = asyncio.get_running_loop().time()
        if now < self._open_until:
            return
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(SLOW):
                for client, number in product((self._questions, self._writes), range(4, CONNECTIONS + 1, 4)):
                    await asyncio.gather(*(client.ping() for _ in range(number)))
            self._open_until = now + OPENED_FOR

    async def wait_for_message(self, position: int) -> None:
        """Return when the stream has a message after `position`, or after a while."""
        key = self._key("stream")
        with _errors():
            async with asyncio.timeout(SLOW + BLOCK):
                await self._stream.xread({key: f"{position}-0"}, count=1, block=int(BLOCK * 1000))

    async def read(self, name: str, scopes: Sequence[str], *, patient: bool = False) -> Found:
        """The answer of that name, and the fences of its key. `patient`: no question waits for it."""
        client, seconds = (self._writes, SLOW) if patient else (self._questions, QUICK)
        async with _within(seconds):
            answer = await self._call(client, _names(name, scopes), "read")
        with _errors():
            epoch, now_ms, fences, content, settled_ms = answer
            vector = tuple(Fence(*fence.split(" ")) for fence in fences.decode().split("\n")) if scopes else ()
            return Found(epoch.decode(), int(now_ms), vector, content, int(settled_ms or 0))

    async def keep(self, answers: Sequence[ToKeep]) -> list[str]:
        """Keep allows and configs whose fences are still the same; returns `kept`, or why not, for each."""
        calls = [
            self._values(
                _names(each.name, each.scopes),
                "keep",
                *(each.verdict, each.epoch, each.asked_ms, each.lifetime_ms, each.content),
                *(part for fence in each.vector for part in fence),
            )
            for each in answers
        ]
        return [str(answer[2].decode()) for answer in await self._at_once(calls)]

    async def deny(
        self,
        name: str,
        scopes: Sequence[str],
        verdict: str,
        asked_for_ms: int,
        settled_for_ms: int,
        lifetime_ms: int,
        content: bytes,
        every_ms: int,
        message: bytes,
        *,
        again: bool = False,
    ) -> str:
        """Keep a deny that was asked and answered so long ago, and say so. `again`: not if this epoch knows it. Returns
        the epoch."""
        arguments = (verdict, asked_for_ms, settled_for_ms, lifetime_ms, content, every_ms, message)
        answer = await self._call(self._writes, _names(name, scopes), "deny", *arguments, "again" if again else "")
        with _errors():
            return str(answer[0].decode())

    async def change(self, changes: Sequence[tuple[str, Sequence[str], bytes]]) -> str:
        """For each, in order: replace a part of these fences, and say this message. Returns the epoch in which it was
        done."""
        calls = [
            self._values(["changes", *(f"fence:{scope}" for scope in scopes)], "change", part[0], message)
            for part, scopes, message in changes
        ]
        answers = await self._at_once(calls)
        return str(answers[0][0].decode())

    async def changes(self) -> tuple[int, list[tuple[int, bytes]]]:
        """The engine's clock, and the messages of the changes of the last day, each with when it was said."""
        answer = await self._call(self._writes, ["changes"], "changes")
        with _errors():
            _, now_ms, said = answer
            return int(now_ms), [(int(at_ms), bytes(message)) for at_ms, message in said]

    async def _at_once(self, calls: Sequence[Sequence[Any]]) -> Any:
        """In order, in one message to the engine."""
        with _errors():
            async with asyncio.timeout(SLOW):
                try:
                    return await self._in_one_go(calls)
                except NoScriptError:
                    self._sha = ""
                    return await self._in_one_go(calls)

    async def _in_one_go(self, calls: Sequence[Sequence[Any]]) -> Any:
        sha = await self._loaded(self._writes)
        async with self._writes.pipeline(transaction=False) as pipeline:
            for values in calls:
                pipeline.evalsha(sha, *values)
            return await pipeline.execute()

    async def order(self, order_id: str, left_ms: int, message: bytes) -> None:
        """Keep an order for other shards until it is over, at most so long, and say it."""
        await self._call(self._writes, ["orders", f"absent:{order_id}"], "order", order_id, left_ms, message)

    async def outcome(self, order_id: str, message: bytes, absent_at: str = "", complete_in: str = "") -> bool:
        """Say what became of an order; where it is `absent_at` one shard, only when it is absent at all, which only an
        epoch can know that is `complete_in` the names of shards. Returns whether it is said."""
        names = ["orders", f"absent:{order_id}", "members"]
        answer = await self._call(self._writes, names, "outcome", order_id, absent_at, message, complete_in)
        if answer[2] == b"incomplete":
            raise EngineError("it may not know all shards")
        return bool(answer[2] == b"said")

    async def over(self, order_id: str) -> None:
        """Nobody waits for this order any more."""
        await self._call(self._writes, ["orders", f"absent:{order_id}"], "over", order_id)

    async def orders(self) -> tuple[int, list[bytes]]:
        """The engine's clock, and the messages of the orders that wait, in the order in which they were said."""
        answer = await self._call(self._writes, ["orders"], "orders")
        with _errors():
            _, now_ms, waiting = answer
            return int(now_ms), [bytes(message) for _, message in sorted(waiting)]

    async def first(self, name: str, value: str, lifetime_ms: int) -> str:
        """What was first kept under this name, for so long; `value`, if there was nothing."""
        with _errors():
            async with asyncio.timeout(SLOW):
                key = self._key(f"first:{name}")
                kept: Any = await self._writes.set(key, value, px=lifetime_ms, nx=True, get=True)
                return value if kept is None else str(kept.decode())

    async def withdraw(self, name: str) -> None:
        """Keep nothing under this name."""
        await self._call(self._writes, [f"answer:{name}"], "withdraw")

    async def examine(self) -> Examined:
        """What the engine says about itself, and whether it can be used. Nothing stays there."""
        with _errors():
            async with asyncio.timeout(SLOW * 5):
                return await examine(self._writes, self._key, SCRIPT)

    async def _call(self, client: Redis, names: Sequence[str], operation: str, *arguments: Any) -> Any:
        values = self._values(names, operation, *arguments)
        with _errors():
            async with asyncio.timeout(SLOW):
                sha = await self._loaded(client)
                try:
                    return await client.evalsha(sha, *values)
                except NoScriptError:
                    self._sha = ""
                    return await client.evalsha(await self._loaded(client), *values)

    async def _loaded(self, client: Redis) -> str:
        """The name of the script, which the engine has."""
        if not self._sha:
            self._sha = str(await client.script_load(SCRIPT))
        return self._sha

    def _values(self, names: Sequence[str], operation: str, *arguments: Any) -> list[Any]:
        """What a call of the script has after its name."""
        keys = [self._key(name) for name in ("generation", "stream", *names)]
        return [len(keys), *keys, operation, self._nonce(), *arguments]

    def _key(self, name: str) -> str:
        """All keys have one hash tag, so that a cluster keeps them together."""
        return f"{{{self._place.namespace}}}:{name}"


def _names(name: str, scopes: Sequence[str]) -> list[str]:
    return [f"answer:{name}", *(f"fence:{scope}" for scope in scopes)]


def _client(place: Place, timeout: float, connections: int) -> Redis:
    options: dict[str, Any] = {}
    if place.url.lower().startswith("rediss:"):
        options["ssl_check_hostname"] = True  # the oldest clients that setup.cfg allows do not by themselves
    if place.ca_file is not None:
        options["ssl_ca_certs"] = place.ca_file
    if place.password is not None:
        options["password"] = place.password
    pool = BlockingConnectionPool.from_url(
        place.url,
        max_connections=connections,
        timeout=timeout,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        **options,
    )
    return Redis.from_pool(pool)


class _errors:
    """Every failure of the client is an EngineError, which names no address and no password."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        match error:
            case TimeoutError():
                raise EngineError("no answer in time") from None
            case RedisError() | OSError() | ssl.SSLError():
                raise EngineError(f"{type(error).__name__}: {str(error)[:200]}") from None
            case TypeError() | ValueError() | AttributeError():
                raise EngineError("an answer that cannot be read") from None


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise EngineError("no answer in time") from None
