"""A join that needs the decision and the room config, as the link asks for them."""

import json

import pytest

from sidecar.clock import SystemClock
from sidecar.core.model import Answer, Endpoint, Source
from sidecar.facts import Fact
from sidecar.web.questions import Exchange, Questions, WebhookSettings
from sidecar.web.requests import Route
from tests.unit.builders import CONFIG, DENY
from tests.unit.web.engines import JOIN, PREFIX, Engines

WITH_CONFIG = b'{"allowed":true,"reason":null,"configuration":{"chatEnabled":false}}'


@pytest.fixture
def engines() -> Engines:
    return Engines()


async def join(engines: Engines) -> Exchange:
    facts: list[Fact] = []
    questions = Questions(engines, engines, WebhookSettings(PREFIX), SystemClock(), lambda n: "ab" * n, facts.append)
    exchange = questions.begin()
    route = Route(Endpoint.VALIDATE_ACCESS, config_too=True)
    await questions.answer(exchange, route, json.dumps(JOIN).encode())
    assert exchange.problem is None
    return exchange


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
