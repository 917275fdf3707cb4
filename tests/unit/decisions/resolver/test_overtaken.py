"""Answers that arrive late: after a later question was answered, or after the config changed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sidecar.core.breaker import BreakerRules
from sidecar.core.model import Answer, Endpoint, Outcome, Source, Verdict
from sidecar.core.selection import Change, Selector
from tests.unit.harness import CONFIG, DECISION, Harness, Held, after, allow, config, deny, rejected, settled
from tests.unit.virtual import in_virtual_time


def says(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer.body)
    return body


async def two_calls(harness: Harness, endpoint: Endpoint, newer: Outcome) -> tuple[Held, asyncio.Task[Answer]]:
    """One that began before an outage and is still under way, and the probe after it, which was answered."""

    def ask() -> asyncio.Task[Answer]:
        return asyncio.ensure_future(harness.asks_config() if endpoint is CONFIG else harness.asks())

    held, first = harness.backend.hold(), ask()
    await settled()
    await harness.trip(endpoint)
    await harness.passes(0.7)
    harness.backend.says(newer)
    await ask()
    harness.backend.calls.clear()
    return held, first


def with_a_short_break() -> Harness:
    return Harness(breaker=BreakerRules(open_for=0.5))


@in_virtual_time
async def test_an_older_config_that_arrives_late_is_no_answer_and_the_newer_one_is() -> None:
    harness = with_a_short_break()
    held, first = await two_calls(harness, CONFIG, config(newer=True))
    held.comes(config(newer=False))
    assert says(await first)["newer"] is True
    assert says(await harness.asks_config())["newer"] is True
    assert not harness.backend.calls


@in_virtual_time
@pytest.mark.parametrize("newer", [config("no-store", newer=True), rejected(404)])
async def test_an_older_config_is_not_kept_where_the_newer_answer_was_not_and_the_question_is_asked_again(
    newer: Outcome,
) -> None:
    harness = with_a_short_break()
    held, first = await two_calls(harness, CONFIG, newer)
    harness.backend.always(newer)
    held.comes(config(newer=False))
    answer = await first
    assert answer.status == newer.status
    assert "newer" not in says(answer) or says(answer)["newer"] is True
    assert len(harness.backend.calls) == 1
    assert harness.cache.count(Verdict.CONFIG) == 0


@in_virtual_time
@pytest.mark.parametrize("change", [Change.DROP, Change.SUSPECT])
async def test_a_config_that_was_under_way_at_an_order_is_no_answer_and_the_question_is_asked_again(
    change: Change,
) -> None:
    harness = Harness()
    held = harness.backend.hold()
    first = asyncio.ensure_future(harness.asks_config())
    await settled()
    await harness.resolver.purge(Selector("standup", endpoint=CONFIG), change)
    harness.backend.says(config(newer=True))
    held.comes(config(newer=False))
    assert says(await first)["newer"] is True
    assert len(harness.backend.calls) == 2


@in_virtual_time
async def test_who_was_made_a_moderator_by_an_older_answer_is_what_the_newer_one_says() -> None:
    harness = with_a_short_break()
    held, first = await two_calls(harness, DECISION, allow())
    held.comes(allow(isModerator=True))
    assert "isModerator" not in says(await first)
    assert "isModerator" not in says(await harness.asks())


@in_virtual_time
async def test_a_late_failure_of_an_older_question_is_no_reason_to_refuse() -> None:
    harness = with_a_short_break()
    held, first = await two_calls(harness, CONFIG, config("no-store", newer=True))
    harness.backend.always(config("no-store", newer=True))
    held.comes(rejected(503))
    assert says(await first)["newer"] is True


@in_virtual_time
@pytest.mark.parametrize("newer", [allow(), allow("no-store")], ids=["kept", "not kept"])
async def test_a_deny_or_a_lobby_that_arrives_late_counts_all_the_same(newer: Outcome) -> None:
    harness = with_a_short_break()
    held, first = await two_calls(harness, DECISION, newer)
    held.comes(deny())
    assert (await first).allowed is False
    assert (await harness.asks()).allowed is False
    harness = with_a_short_break()
    held, first = await two_calls(harness, DECISION, newer)
    held.comes(allow(requireLobby=True))
    assert says(await first)["requireLobby"] is True
    assert says(await harness.asks())["requireLobby"] is True


@in_virtual_time
async def test_a_lobby_that_arrives_late_takes_no_later_deny_away() -> None:
    harness = with_a_short_break()
    held, first = await two_calls(harness, DECISION, deny())
    held.comes(allow(requireLobby=True))
    assert (await first).allowed is False
    assert (await harness.asks()).allowed is False


# ---- the config that comes along with a decision


@in_virtual_time
@pytest.mark.parametrize(
    ("newer", "brought"), [(config(newer=True), {}), (rejected(404), {"configuration": {"newer": False}})]
)
async def test_a_decision_that_is_slow_brings_no_older_config_along_unless_the_backend_knows_no_other_way(
    newer: Outcome, brought: dict[str, Any]
) -> None:
    harness = Harness()
    slow = harness.backend.hold()
    decision = harness.soon()
    await settled()
    room = asyncio.ensure_future(harness.asks_config())
    harness.backend.says(after(0.5, newer))
    await room
    slow.comes(allow(configuration={"newer": False}))
    answer = await decision
    assert says(answer) == {"allowed": True, "reason": None, **brought}
    assert harness.cache.count(Verdict.CONFIG) == 1


@in_virtual_time
async def test_a_decision_from_memory_brings_no_config_that_is_older_than_the_rooms() -> None:
    harness = Harness()
    harness.backend.says(allow(configuration={"newer": False}))
    await harness.asks()
    assert says(await harness.asks())["configuration"] == {"newer": False}
    await harness.passes(6)
    harness.backend.says(config(newer=True))
    assert says(await harness.asks_config())["newer"] is True
    answer = await harness.asks()
    assert (answer.source, says(answer)) == (Source.HIT, {"allowed": True, "reason": None})
    at_once = harness.resolver.at_once(harness.query(DECISION, roomName="standup", userJid="alice@example.com/x").key)
    assert at_once is not None
    assert "configuration" not in says(at_once)


@in_virtual_time
async def test_after_a_refresh_no_decision_brings_the_config_from_before_it() -> None:
    harness = Harness()
    harness.backend.says(allow(configuration={"newer": False}))
    await harness.asks()
    slow = harness.backend.hold()
    other = harness.soon("bob@example.com")
    await settled()
    await harness.resolver.purge(Selector("standup", endpoint=CONFIG), Change.SUSPECT)
    assert "configuration" not in says(await harness.asks())
    slow.comes(allow(configuration={"newer": False}))
    assert "configuration" not in says(await other)


@in_virtual_time
async def test_of_the_answers_that_are_not_kept_only_the_latest_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.decisions.shared_calls.MOST_NOT_KEPT", 3)
    harness = Harness()
    harness.backend.always(config("no-store"))
    for number in range(10):
        await harness.asks_config(f"room-{number}")
    assert [key.room for key in harness.resolver._calls._not_kept] == ["room-7", "room-8", "room-9"]
