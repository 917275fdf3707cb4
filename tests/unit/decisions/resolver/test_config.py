"""The gateway and a room's settings."""

from __future__ import annotations

import asyncio

from sidecar.core.breaker import BreakerRules
from sidecar.core.classify import classify
from sidecar.core.model import Source
from sidecar.core.policy import OnUnavailable
from sidecar.web import cache_status
from tests.unit.harness import (
    CONFIG,
    HANG,
    Stage,
    after,
    broken,
    config,
    rejected,
    rules,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_without_settings_a_room_gets_503_and_when_to_come_back() -> None:
    stage = Stage()
    stage.backend.always(broken())
    answer = await stage.asks_config()
    assert (answer.status, answer.body, answer.retry_after) == (503, b"", 1)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; fwd-status=500; detail=refused"


@in_virtual_time
async def test_the_default_config_is_given_where_the_operator_says_so_and_the_backend_hears_of_the_room_later() -> None:
    stage = Stage(config=rules(on_unavailable=OnUnavailable.DEFAULT, default_body=b'{"lobbyEnabled":true}'))
    stage.backend.always(broken())
    answer = await stage.asks_config()
    assert (answer.status, answer.body) == (200, b'{"lobbyEnabled":true}')
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; fwd-status=500; detail=default"
    assert [query.key.room for query in stage.told_later] == ["standup"]


@in_virtual_time
async def test_a_room_the_backend_does_not_want_is_not_masked_by_what_it_was_before() -> None:
    stage = Stage()
    await stage.asks_config()
    await stage.passes(100)
    stage.backend.says(rejected(404))
    answer = await stage.asks_config()
    assert (answer.status, answer.body) == (404, b'{"error":"no such room"}')
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; fwd-status=404"
    stage.backend.always(broken())
    assert (await stage.asks_config()).status == 503


@in_virtual_time
async def test_a_rejection_is_not_remembered() -> None:
    stage = Stage()
    stage.backend.says(rejected(409))
    assert (await stage.asks_config()).status == 409
    assert (await stage.asks_config()).status == 200


@in_virtual_time
async def test_settings_are_answered_with_200_whichever_2xx_the_backend_chose() -> None:
    stage = Stage()
    stage.backend.says(classify(CONFIG.kind, 201, b'{"chatEnabled":false}'))
    answer = await stage.asks_config()
    assert (answer.status, answer.body) == (200, b'{"chatEnabled":false}')


@in_virtual_time
async def test_a_room_answered_from_memory_in_an_outage_is_told_to_the_backend_later_once() -> None:
    stage = Stage()
    await stage.asks_config()
    await stage.passes(100)
    stage.backend.always(broken())
    assert (await stage.asks_config()).source is Source.STALE
    assert len(stage.told_later) == 1


@in_virtual_time
async def test_a_room_answered_from_memory_while_the_breaker_is_open_is_told_later() -> None:
    stage = Stage()
    await stage.asks_config()
    await stage.passes(100)
    await stage.trip(CONFIG)
    stage.told_later.clear()
    assert (await stage.asks_config()).source is Source.STALE
    assert [query.key.room for query in stage.told_later] == ["standup"]
    assert stage.backend.calls == []


@in_virtual_time
async def test_a_room_answered_fresh_from_memory_is_not_told_again() -> None:
    stage = Stage()
    await stage.asks_config()
    await stage.asks_config()
    assert stage.told_later == []


@in_virtual_time
async def test_a_room_the_backend_answered_late_is_not_told_again() -> None:
    stage = Stage()
    await stage.asks_config()
    await stage.passes(100)
    stage.backend.says(after(1, config()))
    assert (await stage.asks_config()).source is Source.STALE
    await stage.passes(2)
    assert stage.told_later == []


@in_virtual_time
async def test_a_room_answered_from_memory_while_its_question_waited_in_vain_for_a_place_is_told_later() -> None:
    stage = Stage(max_in_flight=4, breaker=BreakerRules(minimum_calls=4))
    await stage.asks_config()
    await stage.passes(100)
    stage.backend.always(HANG)
    others = [asyncio.ensure_future(stage.asks_config(f"room-{number}")) for number in range(12)]
    await settled()
    answer = await stage.asks_config()  # no place is free: half a second later memory answers
    assert answer.source is Source.STALE
    await asyncio.gather(*others)
    assert stage.moves(CONFIG) == ["open"]
    assert [query.key.room for query in stage.told_later] == ["standup"]
    assert "standup" not in [call.query.key.room for call in stage.backend.calls[1:]]


@in_virtual_time
async def test_a_room_the_backend_did_not_answer_in_time_is_told_once() -> None:
    stage = Stage(config=rules(on_unavailable=OnUnavailable.DEFAULT, default_body=b"{}"))
    stage.backend.always(HANG)
    answers = await asyncio.gather(*(stage.asks_config() for _ in range(3)))
    assert {answer.detail for answer in answers} == {"default"}
    await stage.passes(5)
    assert len(stage.told_later) == 1


@in_virtual_time
async def test_a_room_whose_flight_crashed_after_memory_had_answered_is_told_later() -> None:
    stage = Stage()
    await stage.asks_config()
    await stage.passes(100)

    async def crash_late(query: object, patience: float) -> None:
        await asyncio.sleep(1)
        raise LookupError

    stage.backend.says(crash_late)  # type: ignore[arg-type]
    assert (await stage.asks_config()).source is Source.STALE
    await stage.passes(2)
    assert len(stage.told_later) == 1
