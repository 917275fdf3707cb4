"""The resolver when nothing is known."""

from __future__ import annotations

import pytest

from sidecar.core.model import Outcome, Source
from sidecar.core.policy import OnUnavailable
from sidecar.decisions.explain import explain
from sidecar.web.responses import cache_status
from tests.unit.builders import a_policy
from tests.unit.harness import (
    DECISION,
    HANG,
    Harness,
    allow,
    broken,
    deny,
    now,
    reason,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_an_unknown_user_gets_the_backends_answer_and_how_it_came() -> None:
    harness = Harness()
    answer = await harness.asks()
    assert (answer.status, answer.allowed) == (200, True)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; stored"


@in_virtual_time
async def test_an_unknown_user_is_refused_when_the_backend_fails_and_the_answer_says_why() -> None:
    harness = Harness()
    harness.backend.always(broken(503))
    answer = await harness.asks()
    assert (answer.status, answer.allowed) == (200, False)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; fwd-status=503; detail=refused"
    assert isinstance(reason(answer), str)


@in_virtual_time
async def test_an_unknown_user_is_let_in_where_the_operator_says_so_and_only_there() -> None:
    harness = Harness(rooms={"lecture": a_policy(on_unavailable=OnUnavailable.ALLOW)})
    harness.backend.always(broken())
    answer = await harness.asks(room="lecture")
    assert (answer.allowed, answer.detail, answer.stored) == (True, "allowed-by-policy", False)
    assert (await harness.asks(room="board")).allowed is False
    assert len(harness.cache) == 0


@in_virtual_time
async def test_on_unavailable_allow_does_not_let_in_a_user_whose_last_answer_was_a_deny() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    harness.backend.says(deny())
    await harness.asks()
    await harness.passes(5 + 3600 + 1)
    harness.backend.always(broken())
    assert (await harness.asks()).allowed is False
    assert (await harness.asks("unknown@example.com")).allowed is True


@in_virtual_time
async def test_a_deny_that_may_not_be_stored_still_takes_the_allow_away() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    await harness.asks()
    await harness.passes(100)
    harness.backend.says(deny("Cancelled", "no-store"))
    assert (await harness.asks()).allowed is False
    harness.backend.always(broken())
    answer = await harness.asks()
    assert (answer.allowed, reason(answer) == "Cancelled") == (False, False)


@in_virtual_time
async def test_a_hanging_backend_costs_an_unknown_user_no_more_than_the_deadline() -> None:
    harness = Harness()
    harness.backend.always(HANG)
    begun = now()
    answer = await harness.asks()
    assert now() - begun < 4.0
    assert (answer.allowed, answer.source) == (False, Source.POLICY)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; detail=refused"


@in_virtual_time
async def test_the_deadline_counts_from_the_head_of_the_request() -> None:
    harness = Harness()
    harness.backend.always(HANG)
    query = harness.query(DECISION, roomName="standup", userJid="a@b")
    await harness.passes(2)
    begun = now()
    await harness.resolver.resolve(query)
    assert now() - begun < 2.0


@in_virtual_time
async def test_a_question_that_comes_after_its_deadline_is_answered_at_once_without_asking() -> None:
    harness = Harness()
    query = harness.query(DECISION, roomName="standup", userJid="a@b")
    await harness.passes(10)
    begun = now()
    answer = await harness.resolver.resolve(query)
    assert (now() - begun, answer.allowed, harness.backend.calls) == (0, False, [])


@in_virtual_time
@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (allow(), "lets the user in"),
        (allow(requireLobby=True), "sends the user to the lobby"),
        (deny(), "denies, since the last answer was a deny"),
    ],
)
async def test_an_operator_can_see_what_the_last_answer_means_for_on_unavailable(last: Outcome, expected: str) -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    harness.backend.says(last)
    await harness.asks()
    await harness.passes(2 * 3600)
    key = harness.query(DECISION, roomName="standup", userJid="alice@example.com/phone").key
    explanation = explain(key, harness.resolver.preview(key), harness.clock.monotonic())
    assert f"nothing usable is remembered: {expected}" in explanation.if_backend_failed_now
