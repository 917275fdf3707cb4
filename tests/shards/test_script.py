"""The script in a real engine does what its model in Python does, on which the state machine relies.

Each operation is done in the engine first, and then in the model at the time that the engine names.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis

from sidecar.core.engine_clock import EngineClock, Renewal
from sidecar.core.fences import MISSING, PARTS, Fence
from sidecar.core.members import Process
from sidecar.core.sealed import ToKeep
from sidecar.errors import EngineError
from sidecar.shared.engine import Engine, Place
from tests.rig.engine import EngineProcess
from tests.unit.decisions.engine_model import Data, EngineModel

NAMES = ["ann", "bob"]
SCOPES = {"ann": ["all", "room", "user ann"], "bob": ["all", "room", "user bob"]}
MEMBERS = ["here", "there"]
LONG = 600_000
STEPS = 150


class Watched(Engine):
    """Knows when the last operation was done, on the clock of the engine, and what came of it."""

    now_ms = 0
    happened = ""

    async def _call(self, *arguments: Any) -> Any:
        answer = await super()._call(*arguments)
        self._note(answer)
        return answer

    async def _in_one_go(self, calls: Any) -> Any:
        answers = await super()._in_one_go(calls)
        self._note(answers[0])
        return answers

    def _note(self, answer: Any) -> None:
        self.now_ms = int(answer[1])
        self.happened = answer[2].decode() if len(answer) > 2 and isinstance(answer[2], bytes) else ""


class Pair:
    """A real engine and its model, with the same random texts."""

    def __init__(self, url: str, chance: random.Random) -> None:
        self.chance = chance
        self.texts = 0
        self.engine = Watched(Place(url), self.text)
        self.client: Any = Redis.from_url(url)
        self.model = EngineModel()
        self.model.nonce = lambda: f"t{self.texts}"  # type: ignore[method-assign]
        self.found: dict[str, deque[tuple[Any, str]]] = {name: deque(maxlen=3) for name in NAMES}
        """By name: what the engine said at the last reads, and the model's epoch then."""
        self.epochs = "", ""
        """Of the engine and of the model, when all names were read."""

    def text(self) -> str:
        self.texts += 1
        return f"t{self.texts}"

    def now(self) -> None:
        """The next operation of the model is at the time of the last one of the engine."""
        self.model.now_ms = self.engine.now_ms

    async def read(self, name: str) -> None:
        found = await self.engine.read(name, SCOPES[name])
        self.model.now_ms = found.now_ms
        modelled = self.model.read(name, SCOPES[name])
        assert found.fences == modelled.fences
        assert (found.content, found.settled_ms) == (modelled.content, modelled.settled_ms)
        self.found[name].append((found, modelled.epoch))

    async def keep(self, name: str) -> None:
        if not self.found[name]:
            return
        found, epoch = self.chance.choice(self.found[name])
        content = self.text().encode()
        arguments = (name, SCOPES[name], "allow")
        (happened,) = await self.engine.keep(
            [ToKeep(*arguments, found.epoch, found.fences, found.now_ms, LONG, content)]
        )
        self.now()
        assert self.model.keep(*arguments, epoch, found.fences, found.now_ms, content) == happened

    async def deny(self, name: str) -> None:
        ages = sorted(self.chance.choices([0, 0, 5, 40, 400, 2500], k=2))
        settled_for, asked_for = ages
        verdict = self.chance.choice(["deny", "deny", "lobby", "lobby", "private"])
        every, again = self.chance.choice([0, 8, 8, 10_000]), self.chance.random() < 0.4
        content, said = self.text().encode(), self.text().encode()
        await self.engine.deny(
            name, SCOPES[name], verdict, asked_for, settled_for, LONG, content, every, said, again=again
        )
        self.now()
        happened = self.model.deny(
            name, SCOPES[name][1], verdict, asked_for, settled_for, every, content, said, again=again
        )
        assert happened == self.engine.happened

    async def change(self) -> None:
        part = self.chance.choice([*PARTS.values()])
        scopes = self.chance.sample(SCOPES["ann"] + ["user bob", "unknown"], 2)
        said = self.text().encode()
        await self.engine.change([(part, [f"{each}" for each in scopes], said)])
        self.now()
        self.model.change(part, scopes, said)
        _, changes = await self.engine.changes()
        assert changes == self.model.changes()

    async def withdraw(self, name: str) -> None:
        await self.engine.withdraw(name)
        self.model.withdraw(name)

    async def beat(self) -> None:
        position = self.chance.randrange(max(1, await self.tail() + 1))
        member = self.chance.choice(MEMBERS)
        process = self.chance.choice(["1 p1 f", "2 p2 f"])
        batch = await self.engine.beat(position, member, process=process)
        self.model.now_ms = batch.now_ms
        assert self.model.show(member, process) == self.engine.before
        modelled = self.model.beat(position, most=500)
        assert (batch.tail, batch.messages) == (modelled.tail, modelled.messages)

    async def present(self) -> None:
        ages_ms = {self.chance.choice([*MEMBERS, "away"]): 20_000} if self.chance.random() < 0.3 else {}
        epoch, known = await self.engine.present({member: age / 1000 for member, age in ages_ms.items()})
        self.now()
        modelled = self.model.present(ages_ms)
        assert {member: (round(age * 1000), process) for member, age, process in known} == {
            member: (age_ms, Process.of(process)) for member, (age_ms, process) in modelled.items()
        }
        self.epochs = epoch, self.model.beat(0).epoch

    async def order(self) -> None:
        order_id, said = self.chance.choice(["o1", "o2", "o3"]), self.text().encode()
        match self.chance.choice(["order", "order", "absent", "absent", "done", "over", "look"]):
            case "order":
                await self.engine.order(order_id, LONG, said)
                self.now()
                self.model.order(order_id, LONG, said)
            case "over":
                await self.engine.over(order_id)
                self.model.over(order_id)
            case "look":
                _, waiting = await self.engine.orders()
                assert waiting == self.model.orders()
            case what:
                absent_at = self.chance.choice([*MEMBERS, "away"]) if what == "absent" else ""
                epoch, modelled = self.epochs
                with suppress(EngineError):
                    await self.engine.outcome(order_id, said, absent_at, epoch)
                self.now()
                assert self.model.outcome(order_id, said, absent_at, modelled) == self.engine.happened

    async def trouble(self) -> None:
        match self.chance.choice(["restart", "lose fences", "renew"]):
            case "restart":  # only its name changes: nothing is on its disk
                await self.client.flushall()
                self.model.become(Data())
                await self.beat()
            case "lose fences":
                for scope in ("all", "room", "user ann", "user bob"):
                    await self.client.delete(f"{{prosody-sidecar}}:fence:{scope}")
                    self.model.data.denied.pop(scope, None)
                self.model.data.fences.clear()
            case _:
                epoch = (await self.engine.beat(0, MEMBERS[0])).epoch
                self.model.beat(0)
                batch = await self.engine.beat(0, MEMBERS[0], Renewal(epoch, 20_000))
                self.model.now_ms = batch.now_ms
                self.model.show(MEMBERS[0], "")
                modelled = f"{self.model.run}-{self.model.data.generation}"
                renewed = self.model.beat(0, renewal=Renewal(modelled, 20_000)).epoch
                assert EngineClock.of(batch.epoch).set_back_ms == EngineClock.of(renewed).set_back_ms

    async def tail(self) -> int:
        if not await self.client.exists("{prosody-sidecar}:stream"):
            return 0
        return int((await self.client.xinfo_stream("{prosody-sidecar}:stream"))["last-generated-id"].split(b"-")[0])

    async def compare(self) -> None:
        """What is kept, field by field."""
        for scope in {each for scopes in SCOPES.values() for each in scopes}:
            fields = await self.client.hmget(f"{{prosody-sidecar}}:fence:{scope}", "d", "r", "s", "k")
            fence = Fence(*((field or b"").decode() for field in fields))
            assert fence == self.model.data.fences.get(scope, MISSING), scope
        for name in NAMES:
            kept = await self.client.hmget(f"{{prosody-sidecar}}:answer:{name}", "v", "c", "w")
            modelled = self.model.data.entries.get(name)
            assert kept == (
                [None, None, None]
                if modelled is None
                else [modelled.verdict.encode(), modelled.content, str(modelled.settled_ms).encode()]
            )


@pytest.mark.parametrize("seed", range(8))
async def test_the_script_does_what_the_model_does(engine: EngineProcess, seed: int) -> None:
    chance = random.Random(seed)
    pair = Pair(engine.url, chance)
    try:
        await history(pair, chance)
    finally:
        await pair.engine.close()
        await pair.client.aclose()


async def history(pair: Pair, chance: random.Random) -> None:
    await pair.beat()
    for _ in range(STEPS):
        name = chance.choice(NAMES)
        what = chance.choices(
            ["read", "keep", "deny", "change", "withdraw", "beat", "present", "order", "trouble", "wait"],
            [6, 6, 5, 1.5, 1, 3, 2, 6, 0.3, 2],
        )[0]
        match what:
            case "read" | "keep" | "deny" | "withdraw":
                await getattr(pair, what)(name)
            case "wait":
                await asyncio.sleep(0.005)
            case _:
                await getattr(pair, what)()
        await pair.compare()
