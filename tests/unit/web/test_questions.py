"""A join that needs the decision and the room config, as the link asks for them."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from sidecar.clock import Clock, SystemClock
from sidecar.core.model import Answer, Endpoint, Source, Verdict
from sidecar.core.selection import Change, Selector
from sidecar.facts import Fact
from sidecar.web.questions import Exchange, Questions, Resolver, WebhookSettings
from sidecar.web.requests import Route
from tests.unit.builders import CONFIG, DENY, an_entry
from tests.unit.harness import Harness, config, deny, settled
from tests.unit.virtual import in_virtual_time
from tests.unit.web.engines import JOIN, PREFIX, Engines

WITH_CONFIG = b'{"allowed":true,"reason":null,"configuration":{"chatEnabled":false}}'


@pytest.fixture
def engines() -> Engines:
    return Engines()


async def with_a_slow_config(happens: Callable[[Harness], Awaitable[object]]) -> Exchange:
    """A join of somebody who is let in from memory, while this happens before the config is there."""
    harness = Harness()
    await harness.resolver.resolve(harness.query(Endpoint.VALIDATE_ACCESS, **JOIN))
    config_comes = harness.backend.hold()
    exchange, work = begun(harness.resolver, harness.clock)
    await settled()
    await happens(harness)
    config_comes.comes(config())
    await work
    return exchange


async def a_deny(harness: Harness) -> None:
    await harness.passes(0.1)
    key = harness.query(Endpoint.VALIDATE_ACCESS, **JOIN).key
    now = harness.clock.monotonic()
    harness.cache.put(key, an_entry(Verdict.DENY, asked_at=now))


async def a_kick(harness: Harness) -> None:
    harness.backend.says(deny())
    await harness.resolver.purge(Selector("standup", "ann@example.org"), Change.REVOKE)


@pytest.mark.parametrize("happens", [a_deny, a_kick])
def test_who_is_kept_out_while_the_config_is_awaited_does_not_come_in(
    happens: Callable[[Harness], Awaitable[object]],
) -> None:
    @in_virtual_time
    async def case() -> None:
        exchange = await with_a_slow_config(happens)
        assert body(exchange.answer)["allowed"] is False
        assert exchange.config is None

    case()


@in_virtual_time
async def test_a_join_that_waits_for_its_config_is_decided_once() -> None:
    async def nothing(harness: Harness) -> None:
        await harness.passes(0.1)

    exchange = await with_a_slow_config(nothing)
    assert body(exchange.answer)["decidedBy"] == "memory"
    assert exchange.config is not None


async def join(engines: Engines) -> Exchange:
    exchange, work = begun(engines, SystemClock())
    await work
    assert exchange.problem is None
    return exchange


def begun(resolver: Resolver, clock: Clock) -> tuple[Exchange, asyncio.Task[None]]:
    """A join that is being answered."""
    facts: list[Fact] = []
    questions = Questions(resolver, Engines(), WebhookSettings(PREFIX), clock, lambda n: "ab" * n, facts.append)
    exchange = questions.begin()
    route = Route(Endpoint.VALIDATE_ACCESS, config_too=True)

    async def answer() -> None:
        if not questions.answer_at_once(exchange, route, json.dumps(JOIN).encode()):
            await questions.complete(exchange)

    return exchange, asyncio.ensure_future(answer())


def body(answer: Answer | None) -> dict[str, object]:
    assert answer is not None
    return dict(json.loads(answer.body))


async def test_a_join_gets_the_decision_and_the_room_config(engines: Engines) -> None:
    exchange = await join(engines)
    assert body(exchange.answer)["decidedBy"] == "backend"
    assert body(exchange.config) == json.loads(CONFIG)


async def test_a_join_from_memory_says_so_and_has_an_id() -> None:
    remembering = Engines()
    remembering.remembers = True
    remembering.answers[Endpoint.VALIDATE_ACCESS] = Answer(200, WITH_CONFIG, Source.HIT, True)
    exchange = await join(remembering)
    decision = body(exchange.answer)
    assert (decision["decidedBy"], decision["decisionId"]) == ("memory", "ab" * 16)
    assert body(exchange.config) == json.loads(CONFIG), "the config that came with it may be older"


async def test_a_config_that_the_backend_sends_along_needs_no_other_question(engines: Engines) -> None:
    del engines.answers[Endpoint.ROOM_CREATED]
    engines.answers[Endpoint.VALIDATE_ACCESS] = Answer(200, WITH_CONFIG, Source.BACKEND, True, stored=True)
    assert body((await join(engines)).config) == {"chatEnabled": False}


async def test_a_join_that_is_denied_gets_no_config(engines: Engines) -> None:
    engines.answers[Endpoint.VALIDATE_ACCESS] = Answer(200, DENY, Source.BACKEND, allowed=False)
    assert (await join(engines)).config is None


async def test_a_defect_is_decided_by_policy(engines: Engines) -> None:
    engines.error = RuntimeError("a defect")
    decision = body((await join(engines)).answer)
    assert (decision["allowed"], decision["decidedBy"]) == (False, "policy")


async def test_a_join_that_is_denied_from_memory_gets_no_config(engines: Engines) -> None:
    engines.remembers = True
    engines.answers[Endpoint.VALIDATE_ACCESS] = Answer(200, DENY, Source.HIT, allowed=False)
    assert (await join(engines)).config is None
