"""The resolver and a room's settings."""

from __future__ import annotations

import asyncio

from sidecar.core.breaker import BreakerRules
from sidecar.core.classify import classify
from sidecar.core.model import Source
from sidecar.core.policy import OnUnavailable
from sidecar.facts import Asked
from sidecar.web.responses import cache_status
from tests.unit.builders import a_policy
from tests.unit.harness import (
    CONFIG,
    FRESH,
    HANG,
    Harness,
    after,
    broken,
    config,
    rejected,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_without_settings_a_room_gets_503_and_when_to_come_back() -> None:
    harness = Harness()
    harness.backend.always(broken())
    answer = await harness.asks_config()
    assert (answer.status, answer.body, answer.retry_after) == (503, b"", 1)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; fwd-status=500; detail=refused"


@in_virtual_time
async def test_the_default_config_is_given_where_the_operator_says_so_and_the_backend_hears_of_the_room_later() -> None:
    harness = Harness(config=a_policy(on_unavailable=OnUnavailable.DEFAULT, default_body=b'{"lobbyEnabled":true}'))
    harness.backend.always(broken())
    answer = await harness.asks_config()
    assert (answer.status, answer.body) == (200, b'{"lobbyEnabled":true}')
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; fwd-status=500; detail=default"
    assert [query.key.room for query in harness.delivered_later] == ["standup"]


@in_virtual_time
async def test_a_room_the_backend_does_not_want_is_not_masked_by_what_it_was_before() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.passes(100)
    harness.backend.says(rejected(404))
    answer = await harness.asks_config()
    assert (answer.status, answer.body) == (404, b'{"error":"no such room"}')
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; fwd-status=404"
    harness.backend.always(broken())
    assert (await harness.asks_config()).status == 503


@in_virtual_time
async def test_a_rejection_is_not_remembered() -> None:
    harness = Harness()
    harness.backend.says(rejected(409))
    assert (await harness.asks_config()).status == 409
    assert (await harness.asks_config()).status == 200


@in_virtual_time
async def test_settings_are_answered_with_200_whichever_2xx_the_backend_chose() -> None:
    harness = Harness()
    harness.backend.says(classify(CONFIG.kind, 201, b'{"chatEnabled":false}'))
    answer = await harness.asks_config()
    assert (answer.status, answer.body) == (200, b'{"chatEnabled":false}')


@in_virtual_time
async def test_a_room_answered_from_the_cache_in_an_outage_is_delivered_to_the_backend_later_once() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.passes(100)
    harness.backend.always(broken())
    assert (await harness.asks_config()).source is Source.STALE
    assert len(harness.delivered_later) == 1


@in_virtual_time
async def test_a_room_answered_from_memory_while_the_breaker_is_open_is_delivered_later() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.passes(100)
    await harness.trip(CONFIG)
    harness.delivered_later.clear()
    assert (await harness.asks_config()).source is Source.STALE
    assert [query.key.room for query in harness.delivered_later] == ["standup"]
    assert harness.backend.calls == []


@in_virtual_time
async def test_a_room_answered_fresh_from_the_cache_is_not_delivered_later() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.asks_config()
    assert harness.delivered_later == []


@in_virtual_time
async def test_a_room_the_backend_answered_late_is_not_delivered_later() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.passes(100)
    harness.backend.says(after(1, config()))
    assert (await harness.asks_config()).source is Source.STALE
    await harness.passes(2)
    assert harness.delivered_later == []


@in_virtual_time
async def test_a_room_answered_from_memory_while_its_question_got_no_place_is_delivered_later() -> None:
    harness = Harness(max_in_flight=4, breaker=BreakerRules(minimum_calls=4))
    await harness.asks_config()
    await harness.passes(100)
    harness.backend.always(HANG)
    others = [asyncio.ensure_future(harness.asks_config(f"room-{number}")) for number in range(12)]
    await settled()
    answer = await harness.asks_config()  # no place is free: half a second later memory answers
    assert answer.source is Source.STALE
    await asyncio.gather(*others)
    assert harness.changes(CONFIG) == ["open"]
    assert [query.key.room for query in harness.delivered_later] == ["standup"]
    assert "standup" not in [call.query.key.room for call in harness.backend.calls[1:]]


@in_virtual_time
async def test_a_room_the_backend_did_not_answer_in_time_is_delivered_once() -> None:
    harness = Harness(config=a_policy(on_unavailable=OnUnavailable.DEFAULT, default_body=b"{}"))
    harness.backend.always(HANG)
    answers = await asyncio.gather(*(harness.asks_config() for _ in range(3)))
    assert {answer.detail for answer in answers} == {"default"}
    await harness.passes(5)
    assert len(harness.delivered_later) == 1


@in_virtual_time
async def test_a_room_whose_call_crashed_after_memory_had_answered_is_delivered_later() -> None:
    harness = Harness()
    await harness.asks_config()
    await harness.passes(100)

    async def crash_late(query: object, patience: float) -> None:
        await asyncio.sleep(1)
        raise LookupError

    harness.backend.says(crash_late)  # type: ignore[arg-type]
    assert (await harness.asks_config()).source is Source.STALE
    await harness.passes(2)
    assert len(harness.delivered_later) == 1


@in_virtual_time
async def test_a_config_that_protects_less_than_it_says_is_replaced_by_the_last_good_one() -> None:
    harness = Harness()
    harness.backend.says(config(password="open sesame"))
    good = await harness.asks_config()
    await harness.passes(FRESH + 1)
    harness.backend.always(config(password=["open", "sesame"]))
    for _ in range(2):
        answer = await harness.asks_config()
        assert (answer.source, answer.body) == (Source.STALE, good.body)
        await harness.passes(FRESH + 1)


@in_virtual_time
async def test_without_a_good_one_the_room_is_refused_and_asked_about_again() -> None:
    harness = Harness()
    harness.backend.says(config(membersOnly="yes"), config(membersOnly=True))
    assert (await harness.asks_config()).status == 503
    assert (await harness.asks_config()).source is Source.BACKEND


@in_virtual_time
async def test_such_a_config_says_nothing_against_the_backend() -> None:
    harness = Harness()
    harness.backend.always(config(maxParticipants="many"))
    for number in range(50):
        await harness.asks_config(f"room-{number}")
    assert harness.changes() == []
    assert {(fact.outcome, fact.reason) for fact in harness.facts if isinstance(fact, Asked)} == {
        ("unreadable", "maxParticipants must be a whole number")
    }
