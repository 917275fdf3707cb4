"""The resolver and a definite deny."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.model import Outcome, Source, Verdict
from sidecar.core.policy import OnUnavailable
from sidecar.core.selection import Selector
from tests.unit.builders import a_policy, an_entry
from tests.unit.harness import (
    DECISION,
    Harness,
    after,
    allow,
    broken,
    deny,
    now,
    settled,
)
from tests.unit.virtual import in_virtual_time


@in_virtual_time
async def test_a_deny_replaces_an_allow_at_once() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(20)
    harness.backend.says(deny("Cancelled"))
    await harness.asks()  # answered from memory, refreshed behind
    await settled()
    assert (await harness.asks()).allowed is False
    harness.backend.always(broken())
    await harness.passes(100)
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_an_older_allow_that_arrives_after_a_deny_lets_nobody_in() -> None:
    harness = Harness()
    old = harness.backend.hold()
    first = harness.soon()
    await settled()
    await harness.resolver.purge(Selector(room="standup"))  # those who ask from now on share no call with the first
    harness.backend.says(deny("Cancelled"))
    assert (await harness.asks()).allowed is False
    old.comes(allow())
    assert (await first).allowed is False
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_a_newer_allow_after_a_deny_lets_in() -> None:
    harness = Harness()
    harness.backend.says(deny(), allow())
    await harness.asks()
    await harness.passes(6)
    assert (await harness.asks()).allowed is True


@in_virtual_time
async def test_a_deny_is_on_disk_before_it_is_answered() -> None:
    harness = Harness()
    harness.disk.persist_takes = 0.1
    harness.backend.says(deny())
    begun = now()
    await harness.asks()
    assert now() - begun == pytest.approx(0.1, abs=0.01)
    assert harness.disk.persisted == 1


@in_virtual_time
async def test_who_finds_a_deny_in_memory_waits_until_it_is_on_disk() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(20)
    harness.disk.persist_takes = 0.2
    harness.backend.says(deny("Cancelled"))
    await harness.asks()  # answered from memory, refreshed behind
    await settled()
    begun = now()
    answer = await harness.asks()
    assert (answer.allowed, answer.source) == (False, Source.HIT)
    assert now() - begun == pytest.approx(0.2, abs=0.01)
    begun = now()
    assert (await harness.asks()).allowed is False
    assert now() == begun


@in_virtual_time
async def test_all_who_wait_for_one_call_hear_its_deny_when_it_is_on_disk() -> None:
    harness = Harness()
    harness.disk.persist_takes = 0.2
    harness.backend.says(after(0.5, deny()))
    begun = now()
    answers = await asyncio.gather(*(harness.asks() for _ in range(5)))
    assert [answer.allowed for answer in answers] == [False] * 5
    assert now() - begun == pytest.approx(0.7, abs=0.01)


@in_virtual_time
async def test_a_late_allow_that_is_answered_with_a_newer_deny_waits_until_that_deny_is_on_disk() -> None:
    harness = Harness()
    await harness.asks("user@example.com")
    await harness.passes(31)
    late = harness.backend.hold()
    first = harness.soon("user@example.com")
    await settled()
    harness.backend.says(deny())
    await harness.asks("other@example.com")  # the next question of the user begins a call of its own
    harness.disk.persist_takes = 0.2
    harness.backend.says(deny("Cancelled"))
    second = harness.soon("user@example.com")
    await settled()
    begun = now()
    late.comes(allow())
    assert (await first).allowed is False
    assert now() - begun == pytest.approx(0.2, abs=0.01)
    assert (await second).allowed is False


@pytest.mark.parametrize("cache_control", ["no-store", "max-age=0", "must-revalidate", "private", "private, no-store"])
def test_a_deny_is_on_disk_before_it_is_answered_whatever_its_cache_control(cache_control: str) -> None:
    @in_virtual_time
    async def case() -> None:
        harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
        await harness.asks("x@guest.example.com", guest=True)
        await harness.passes(31)
        harness.disk.persist_takes = 0.2
        harness.backend.says(deny("Cancelled", cache_control))
        begun = now()
        assert (await harness.asks("x@guest.example.com", guest=True)).allowed is False
        assert now() - begun == pytest.approx(0.2, abs=0.01)
        harness.backend.always(broken())
        assert (await harness.asks("x@guest.example.com", guest=True)).allowed is False

    case()


@in_virtual_time
async def test_a_deny_that_only_keeps_the_policy_from_allowing_is_on_disk_before_it_does() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    harness.disk.persist_takes = 0.2
    harness.backend.says(deny("Cancelled", "no-store"))
    denied = harness.soon()
    await settled()
    harness.backend.always(broken())
    begun = now()
    assert (await harness.asks("ann@example.com")).allowed is True
    assert now() == begun
    refused = harness.soon()
    await settled()
    assert not refused.done()
    assert (await refused).allowed is (await denied).allowed is False


@in_virtual_time
async def test_an_expired_deny_is_on_disk_before_an_open_breaker_makes_use_of_it() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    await harness.trip()
    key = harness.query(DECISION, roomName="standup", userJid="alice@example.com/phone").key
    harness.cache.put(key, an_entry(Verdict.DENY, asked_at=-1e6))
    harness.disk.persist_takes = 0.2
    begun = now()
    answer = await harness.asks()
    assert (answer.allowed, answer.detail) == (False, "refused")
    assert now() - begun == pytest.approx(0.2, abs=0.01)


@in_virtual_time
async def test_a_deny_at_the_last_moment_waits_for_a_disk_that_is_well() -> None:
    harness = Harness()
    harness.disk.persist_takes = 0.04
    harness.backend.says(after(3.849, deny()))
    begun = now()
    assert (await harness.asks()).allowed is False
    assert now() - begun == pytest.approx(3.889, abs=0.002)
    assert harness.disk.persisted >= 1


@in_virtual_time
async def test_a_deny_waits_a_quarter_of_a_second_for_a_slow_disk_and_no_longer() -> None:
    harness = Harness()
    harness.disk.persist_takes = 60
    harness.backend.says(deny())
    begun = now()
    assert (await harness.asks()).allowed is False
    assert now() - begun == pytest.approx(0.25, abs=0.01)


@in_virtual_time
async def test_an_allow_does_not_wait_for_the_disk() -> None:
    harness = Harness()
    harness.disk.persist_takes = 60
    begun = now()
    assert (await harness.asks()).allowed is True
    assert now() == begun


@in_virtual_time
async def test_a_disk_that_hangs_while_it_is_being_loaded_delays_no_answer_past_its_deadline() -> None:
    harness = Harness()
    harness.disk.recall_takes = 1e6
    begun = now()
    answer = await asyncio.wait_for(harness.asks(), 10)
    assert now() - begun < 4.0
    assert answer.allowed is True


@in_virtual_time
async def test_a_disk_that_fails_while_it_is_being_loaded_turns_nobody_away() -> None:
    harness = Harness()
    harness.disk.recall_fails = OSError("disk on fire")
    assert (await harness.asks()).allowed is True


# ---- until the denies on disk have been read


@in_virtual_time
async def test_until_the_denies_on_disk_are_known_a_fresh_allow_is_asked_about_first() -> None:
    harness = Harness()
    await harness.asks()
    harness.cache.denies_known = False
    harness.backend.says(after(1.9, deny("Cancelled")))
    assert (await harness.asks()).allowed is False


@in_virtual_time
async def test_until_the_denies_on_disk_are_known_an_allow_answers_if_the_backend_is_unavailable() -> None:
    harness = Harness()
    await harness.asks()
    harness.cache.denies_known = False
    harness.backend.always(broken())
    answer = await harness.asks()
    assert (answer.allowed, answer.detail) == (True, "suspect")


@pytest.mark.parametrize("open_breaker", [True, False])
def test_until_the_denies_on_disk_are_known_nobody_is_let_in_by_policy(open_breaker: bool) -> None:
    @in_virtual_time
    async def case() -> None:
        harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
        if open_breaker:
            await harness.trip()
        harness.backend.always(broken())
        harness.cache.denies_known = False
        answer = await harness.asks()
        assert (answer.allowed, answer.detail) == (False, "refused")
        harness.cache.denies_known = True
        assert (await harness.asks()).allowed is True

    case()


# ---- where denies were lost with a damaged file


@in_virtual_time
async def test_where_denies_were_lost_nobody_unknown_is_let_in_by_policy() -> None:
    harness = Harness(decision=a_policy(on_unavailable=OnUnavailable.ALLOW))
    await harness.asks("known@example.com")
    harness.cache.lacks_denies = True
    harness.backend.always(broken())
    assert (await harness.asks("unknown@example.com")).allowed is False
    known = await harness.asks("known@example.com")
    assert (known.allowed, known.source) == (True, Source.HIT)


@in_virtual_time
@pytest.mark.parametrize("newer", [allow(), allow("no-store")], ids=["no moderator any more", "not to be remembered"])
async def test_what_takes_a_role_away_is_on_disk_before_it_is_answered(newer: Outcome) -> None:
    harness = Harness()
    harness.backend.says(allow(isModerator=True), allow(isModerator=True), newer)
    await harness.asks()
    await harness.passes(31)
    await harness.asks()
    assert harness.disk.persisted == 0, "the role that was given need not be"
    await harness.passes(31)
    await harness.asks()
    assert harness.disk.persisted == 1


@in_virtual_time
async def test_that_guests_share_no_answer_any_more_is_on_disk_before_the_first_of_them_is_answered() -> None:
    harness = Harness()
    await harness.asks("x1@guest.example.com", guest=True)
    await harness.passes(31)
    harness.backend.says(allow("private"), allow("private"))
    await harness.asks("x1@guest.example.com", guest=True)
    assert harness.disk.persisted == 1
    await harness.asks("x2@guest.example.com", guest=True)
    assert harness.disk.persisted == 1, "there is no shared answer that a crash could bring back"
