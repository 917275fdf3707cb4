"""The gateway: what Prosody is told, how soon, and how often the backend is asked for it."""

from __future__ import annotations

import asyncio
import json

import pytest

from sidecar.cache import Selector
from sidecar.core.breaker import BreakerRules, Permit
from sidecar.core.classify import classify
from sidecar.core.model import Answer, Lifetimes, Source, Verdict
from sidecar.core.policy import Freshness, OnUnavailable
from sidecar.web import cache_status
from tests.unit.stage import (
    CONFIG,
    CONFIG_RULES,
    DECISION,
    DISTRUST,
    HANG,
    REFUSED,
    RESET,
    Stage,
    after,
    allow,
    broken,
    config,
    crash,
    deny,
    rejected,
    rules,
    settled,
)
from tests.unit.virtual import in_virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def reason(answer: Answer) -> object:
    return json.loads(answer.body)["reason"]


# --- the ages of an answer --------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_fresh_answer_asks_nobody() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(14)
    answer = await stage.asks()
    assert (answer.source, answer.allowed, len(stage.backend.calls)) == (Source.HIT, True, 1)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=0"


@in_virtual_time
async def test_within_stale_while_revalidate_the_answer_is_at_once_and_the_refresh_behind_it() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(16)
    stage.backend.says(after(3, allow(seat=7)))
    begun = now()
    answer = await stage.asks()
    assert now() == begun
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=-2; detail=stale-while-revalidate"
    await stage.passes(3.1)
    assert json.loads((await stage.asks()).body)["seat"] == 7
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_two_who_come_while_a_refresh_is_under_way_cause_no_second_one() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(16)
    stage.backend.always(after(1, allow()))
    await asyncio.gather(*(stage.asks() for _ in range(5)))
    await stage.passes(0.5)
    await stage.asks()
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_within_stale_if_error_a_backend_that_is_well_decides() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(deny("Cancelled"))
    answer = await stage.asks()
    assert (answer.allowed, reason(answer), answer.source) == (False, "Cancelled", Source.BACKEND)
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; stored"


@in_virtual_time
async def test_within_stale_if_error_a_backend_that_fails_is_stood_in_for() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(355.5)
    for failure in (broken(), RESET, REFUSED, DISTRUST):
        stage.backend.always(failure)
        answer = await stage.asks()
        assert (answer.allowed, answer.source) == (True, Source.STALE)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=-341; detail=stale-if-error"


@in_virtual_time
async def test_a_slow_backend_is_waited_for_half_a_second_and_its_answer_is_kept() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(after(1.5, deny("Cancelled")))
    begun = now()
    answer = await stage.asks()
    assert now() - begun == pytest.approx(0.5, abs=0.01)
    assert (answer.allowed, answer.source) == (True, Source.STALE)
    await stage.passes(1.1)
    answer = await stage.asks()
    assert (answer.allowed, reason(answer)) == (False, "Cancelled")
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_answer_within_is_the_rooms_own() -> None:
    stage = Stage(decision=rules(answer_within=2.0))
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(after(1.5, deny("Cancelled")))
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_an_expired_allow_is_not_used_even_if_nobody_can_be_asked() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(15 + 3600 + 1)
    stage.backend.always(broken())
    answer = await stage.asks()
    assert (answer.allowed, answer.source) == (False, Source.POLICY)
    assert cache_status(answer) == "prosody-sidecar; fwd=stale; fwd-status=500; detail=refused"


@in_virtual_time
async def test_the_age_of_an_answer_counts_from_the_question() -> None:
    stage = Stage()
    stage.backend.says(after(3, allow()))
    await stage.asks()
    await stage.passes(12.5)
    assert (await stage.asks()).detail == "stale-while-revalidate"


@in_virtual_time
async def test_jitter_only_shortens() -> None:
    stage = Stage(jitter=1.0)
    await stage.asks()
    await stage.passes(13.4)
    assert (await stage.asks()).source is Source.HIT
    await stage.passes(0.3)
    assert (await stage.asks()).detail == "stale-while-revalidate"


@pytest.mark.parametrize(
    "cache_control",
    ["must-revalidate", "no-cache", "stale-if-error=0, stale-while-revalidate=0", "max-age=0, no-store"],
)
def test_an_answer_the_backend_wants_checked_is_not_used_when_stale(cache_control: str) -> None:
    @in_virtual_time
    async def run() -> None:
        stage = Stage()
        stage.backend.says(allow(cache_control))
        await stage.asks()
        await stage.passes(16)
        stage.backend.always(broken())
        answer = await stage.asks()
        assert (answer.allowed, answer.source) == (False, Source.POLICY)

    run()


@in_virtual_time
async def test_max_age_shortens_and_never_lengthens() -> None:
    stage = Stage()
    stage.backend.says(allow("max-age=3"), allow("max-age=3000, stale-if-error=999999"))
    await stage.asks()
    await stage.passes(4)
    assert (await stage.asks()).detail == "stale-while-revalidate"
    await stage.passes(14.5)
    assert (await stage.asks()).source is Source.HIT
    await stage.passes(1)
    assert (await stage.asks()).detail == "stale-while-revalidate"


@in_virtual_time
async def test_garbage_changes_nothing_of_what_is_remembered() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(broken(200), broken(200))
    assert (await stage.asks()).allowed is True
    assert stage.cache.count(Verdict.ALLOW) == 1
    assert (await stage.asks("stranger@example.com")).stored is False
    assert stage.cache.count(Verdict.DENY) == 0


# --- the table, cell by cell: what is said, after how long, and how often a backend that takes 0.7 s is asked -----

AGES = {
    Freshness.FRESH: 5.0,
    Freshness.REVALIDATE: 20.0,
    Freshness.STALE: 100.0,
    Freshness.SUSPECT: 5.0,
    Freshness.EXPIRED: 3700.0,
}
MEMORY, BACKEND, POLICY = (True, Source.STALE), (True, Source.BACKEND), (False, Source.POLICY)
HIT = (True, Source.HIT)
TABLE: dict[Freshness, tuple[tuple[tuple[bool, Source], float, int], ...]] = {
    #                     closed              half-open, free      half-open, out       open
    Freshness.FRESH: ((HIT, 0, 0), (HIT, 0, 0), (HIT, 0, 0), (HIT, 0, 0)),
    Freshness.REVALIDATE: ((MEMORY, 0, 1), (MEMORY, 0, 1), (MEMORY, 0, 0), (MEMORY, 0, 0)),
    Freshness.STALE: ((MEMORY, 0.5, 1), (MEMORY, 0, 1), (MEMORY, 0, 0), (MEMORY, 0, 0)),
    Freshness.SUSPECT: ((BACKEND, 0.7, 1), (BACKEND, 0.7, 1), (MEMORY, 0.5, 0), (MEMORY, 0, 0)),
    Freshness.EXPIRED: ((BACKEND, 0.7, 1), (BACKEND, 0.7, 1), (POLICY, 0.5, 0), (POLICY, 0, 0)),
    Freshness.MISSING: ((BACKEND, 0.7, 1), (BACKEND, 0.7, 1), (POLICY, 0.5, 0), (POLICY, 0, 0)),
}


@pytest.mark.parametrize("permit", Permit)
@pytest.mark.parametrize("state", Freshness)
def test_each_cell_of_the_table_does_what_the_design_says(state: Freshness, permit: Permit) -> None:
    @in_virtual_time
    async def run() -> None:
        stage = Stage()
        pause = 3.7 if permit in (Permit.PROBE_FREE, Permit.PROBE_OUT) else 0.0
        if state is not Freshness.MISSING:
            await stage.asks()
            if state is Freshness.SUSPECT:
                stage.backend.says(deny())
                await stage.asks("late@example.com")
            await stage.passes(AGES[state] - pause)
        if permit is not Permit.CLOSED:
            await stage.trip()
            await stage.passes(pause)
        others = []
        if permit is Permit.PROBE_OUT:
            stage.backend.says(HANG)
            others = [stage.soon("prober@example.com", "another-room")]
            await settled()
        stage.backend.calls.clear()
        stage.backend.always(after(0.7, allow()))
        said, seconds, calls = TABLE[state][list(Permit).index(permit)]
        begun = now()
        answer = await stage.asks()
        assert (answer.allowed, answer.source) == said
        assert now() - begun == pytest.approx(seconds, abs=0.01)
        await settled()
        assert len(stage.backend.calls) == calls
        await asyncio.gather(*others)

    run()


# --- nothing is known --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_unknown_user_gets_the_backends_answer_and_how_it_came() -> None:
    stage = Stage()
    answer = await stage.asks()
    assert (answer.status, answer.allowed) == (200, True)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; stored"


@in_virtual_time
async def test_an_unknown_user_is_refused_when_the_backend_fails_and_told_how_that_came() -> None:
    stage = Stage()
    stage.backend.always(broken(503))
    answer = await stage.asks()
    assert (answer.status, answer.allowed) == (200, False)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; fwd-status=503; detail=refused"
    assert isinstance(reason(answer), str)


@in_virtual_time
async def test_an_unknown_user_is_let_in_where_the_operator_says_so_and_only_there() -> None:
    stage = Stage(rooms={"lecture": rules(on_unavailable=OnUnavailable.ALLOW)})
    stage.backend.always(broken())
    answer = await stage.asks(room="lecture")
    assert (answer.allowed, answer.detail, answer.stored) == (True, "allowed-by-policy", False)
    assert (await stage.asks(room="board")).allowed is False
    assert len(stage.cache) == 0


@in_virtual_time
async def test_one_who_was_denied_last_is_not_waved_through_however_long_ago_that_was() -> None:
    stage = Stage(decision=rules(on_unavailable=OnUnavailable.ALLOW))
    stage.backend.says(deny())
    await stage.asks()
    await stage.passes(5 + 3600 + 1)
    stage.backend.always(broken())
    assert (await stage.asks()).allowed is False
    assert (await stage.asks("stranger@example.com")).allowed is True


@in_virtual_time
async def test_a_deny_that_may_not_be_stored_still_takes_the_allow_away() -> None:
    stage = Stage(decision=rules(on_unavailable=OnUnavailable.ALLOW))
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(deny("Cancelled", "no-store"))
    assert (await stage.asks()).allowed is False
    stage.backend.always(broken())
    answer = await stage.asks()
    assert (answer.allowed, reason(answer) == "Cancelled") == (False, False)


@in_virtual_time
async def test_a_hanging_backend_costs_an_unknown_user_no_more_than_the_deadline() -> None:
    stage = Stage()
    stage.backend.always(HANG)
    begun = now()
    answer = await stage.asks()
    assert now() - begun < 4.0
    assert (answer.allowed, answer.source) == (False, Source.POLICY)
    assert cache_status(answer) == "prosody-sidecar; fwd=miss; detail=refused"


@in_virtual_time
async def test_the_deadline_counts_from_the_head_of_the_request() -> None:
    stage = Stage()
    stage.backend.always(HANG)
    query = stage.query(DECISION, roomName="standup", userJid="a@b")
    await stage.passes(2)
    begun = now()
    await stage.gateway.resolve(query)
    assert now() - begun < 2.0


@in_virtual_time
async def test_a_question_that_comes_after_its_deadline_is_answered_at_once_without_asking() -> None:
    stage = Stage()
    query = stage.query(DECISION, roomName="standup", userJid="a@b")
    await stage.passes(10)
    begun = now()
    answer = await stage.gateway.resolve(query)
    assert (now() - begun, answer.allowed, stage.backend.calls) == (0, False, [])


# --- a room's settings -------------------------------------------------------------------------------------------


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


# --- a deny ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_deny_replaces_an_allow_at_once() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(20)
    stage.backend.says(deny("Cancelled"))
    await stage.asks()  # answered from memory, refreshed behind
    await settled()
    assert (await stage.asks()).allowed is False
    stage.backend.always(broken())
    await stage.passes(100)
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_an_older_allow_that_arrives_after_a_deny_lets_nobody_in() -> None:
    stage = Stage()
    old = stage.backend.hold()
    first = stage.soon()
    await settled()
    await stage.gateway.purge(Selector(room="standup"))  # those who ask from now on share no flight with the first
    stage.backend.says(deny("Cancelled"))
    assert (await stage.asks()).allowed is False
    old.comes(allow())
    assert (await first).allowed is False
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_a_newer_allow_after_a_deny_lets_in() -> None:
    stage = Stage()
    stage.backend.says(deny(), allow())
    await stage.asks()
    await stage.passes(6)
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_a_deny_is_on_disk_before_it_is_answered() -> None:
    stage = Stage()
    stage.disk.persist_takes = 0.1
    stage.backend.says(deny())
    begun = now()
    await stage.asks()
    assert now() - begun == pytest.approx(0.1, abs=0.01)
    assert stage.disk.persisted == 1


@in_virtual_time
async def test_a_deny_waits_a_quarter_of_a_second_for_a_slow_disk_and_no_longer() -> None:
    stage = Stage()
    stage.disk.persist_takes = 60
    stage.backend.says(deny())
    begun = now()
    assert (await stage.asks()).allowed is False
    assert now() - begun == pytest.approx(0.25, abs=0.01)


@in_virtual_time
async def test_an_allow_does_not_wait_for_the_disk() -> None:
    stage = Stage()
    stage.disk.persist_takes = 60
    begun = now()
    assert (await stage.asks()).allowed is True
    assert now() == begun


@in_virtual_time
async def test_a_disk_that_hangs_while_it_is_being_loaded_delays_no_answer_past_its_deadline() -> None:
    stage = Stage()
    stage.disk.recall_takes = 1e6
    begun = now()
    answer = await asyncio.wait_for(stage.asks(), 10)
    assert now() - begun < 4.0
    assert answer.allowed is True


@in_virtual_time
async def test_a_disk_that_fails_while_it_is_being_loaded_turns_nobody_away() -> None:
    stage = Stage()
    stage.disk.recall_fails = OSError("disk on fire")
    assert (await stage.asks()).allowed is True


# --- suspicion ---------------------------------------------------------------------------------------------------


async def a_room_with_a_deny(stage: Stage, others: int = 3) -> None:
    for number in range(others):
        await stage.asks(f"user-{number}@example.com")
    stage.backend.says(deny("Cancelled"))
    await stage.asks("late@example.com")
    stage.backend.calls.clear()


@in_virtual_time
async def test_after_a_deny_the_next_join_of_each_other_user_of_the_room_asks_first() -> None:
    stage = Stage()
    await stage.asks("elsewhere@example.com", "other-room")
    await a_room_with_a_deny(stage)
    stage.backend.always(deny("Cancelled"))
    for number in range(3):
        assert (await stage.asks(f"user-{number}@example.com")).allowed is False
    assert len(stage.backend.calls) == 3
    assert (await stage.asks("elsewhere@example.com", "other-room")).source is Source.HIT


@in_virtual_time
async def test_a_suspect_allow_is_no_excuse_for_a_slow_backend() -> None:
    stage = Stage()
    await a_room_with_a_deny(stage)
    stage.backend.says(after(1.9, deny("Cancelled")))
    assert (await stage.asks("user-0@example.com")).allowed is False


@in_virtual_time
async def test_a_suspect_allow_answers_when_the_backend_is_unavailable() -> None:
    stage = Stage()
    await a_room_with_a_deny(stage)
    stage.backend.says(broken())
    answer = await stage.asks("user-0@example.com")
    assert (answer.allowed, answer.source) == (True, Source.STALE)
    assert cache_status(answer) == "prosody-sidecar; hit; ttl=14; detail=suspect"


@in_virtual_time
async def test_a_suspect_allow_that_is_confirmed_is_no_longer_suspect() -> None:
    stage = Stage()
    await a_room_with_a_deny(stage)
    await stage.asks("user-0@example.com")
    assert (await stage.asks("user-0@example.com")).source is Source.HIT
    assert len(stage.backend.calls) == 1


@in_virtual_time
async def test_an_allow_asked_before_the_deny_and_arriving_after_it_is_suspect() -> None:
    stage = Stage()
    held = stage.backend.hold()
    waiting = stage.soon("user@example.com")
    await settled()
    stage.backend.says(deny("Cancelled"))
    await stage.asks("late@example.com")
    held.comes(allow())
    await waiting
    stage.backend.says(deny("Cancelled"))
    assert (await stage.asks("user@example.com")).allowed is False


@in_virtual_time
async def test_who_asks_after_a_deny_does_not_take_the_answer_to_a_question_asked_before_it() -> None:
    stage = Stage()
    await stage.asks("user@example.com")
    await stage.passes(16)
    held = stage.backend.hold()
    await stage.asks("user@example.com")  # from memory; a refresh is behind it
    await settled()
    stage.backend.says(deny("Cancelled"))
    await stage.asks("late@example.com")
    stage.backend.says(deny("Cancelled"))
    suspect = stage.soon("user@example.com")
    await settled()
    held.comes(allow())
    assert (await suspect).allowed is False


@in_virtual_time
async def test_one_stranger_who_knocks_all_day_does_not_switch_the_rooms_cache_off() -> None:
    stage = Stage(rooms={})
    people = [f"user-{number}@example.com" for number in range(10)]
    for who in people:
        await stage.asks(who)
    stage.backend.calls.clear()
    joins = 0

    async def step(query: object, seconds: float) -> object:
        caller = getattr(query, "caller", "")
        return deny() if caller == "stranger@example.com" else allow()

    stage.backend.always(step)  # type: ignore[arg-type]
    for _ in range(600):  # ten minutes, a knock every second, and everybody joins again every second
        await stage.asks("stranger@example.com")
        for who in people:
            assert (await stage.asks(who)).allowed is True
            joins += 1
        await stage.passes(1)
    calls = [call for call in stage.backend.calls if call.query.caller != "stranger@example.com"]
    assert joins == 6000
    assert len(calls) <= joins / 5
    assert len(stage.backend.calls) - len(calls) <= 600 / 5


@in_virtual_time
async def test_denies_within_a_few_seconds_make_the_room_suspect_once() -> None:
    stage = Stage()
    await stage.asks("user@example.com")
    for number in range(20):
        stage.backend.says(deny())
        await stage.asks(f"stranger-{number}@example.com")
        await stage.asks("user@example.com")
        await stage.passes(0.2)
    asked = [call for call in stage.backend.calls if call.query.caller == "user@example.com"]
    assert len(asked) == 2


# --- one flight per key ------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_hundred_who_ask_the_same_at_once_make_one_call() -> None:
    stage = Stage()
    stage.backend.always(after(0.3, allow()))
    answers = await asyncio.gather(*(stage.asks() for _ in range(100)))
    assert all(answer.allowed for answer in answers)
    assert len(stage.backend.calls) == 1
    assert sum(answer.collapsed for answer in answers) == 99
    assert cache_status(answers[1]) == "prosody-sidecar; fwd=miss; stored; collapsed"


@in_virtual_time
async def test_a_leader_that_hangs_up_strands_nobody_and_costs_no_second_call() -> None:
    stage = Stage()
    stage.backend.always(after(0.3, allow()))
    leader, follower = stage.soon(), stage.soon()
    await settled()
    leader.cancel()
    assert (await follower).allowed is True
    assert len(stage.backend.calls) == 1


@in_virtual_time
async def test_a_flight_all_of_whose_callers_hang_up_is_remembered() -> None:
    stage = Stage()
    stage.backend.always(after(0.3, allow()))
    leader = stage.soon()
    await settled()
    leader.cancel()
    await stage.passes(0.5)
    assert (await stage.asks()).source is Source.HIT


@in_virtual_time
async def test_a_flight_that_crashes_is_reported_and_answers_everybody_by_policy() -> None:
    stage = Stage()
    stage.backend.says(crash)
    answers = await asyncio.gather(*(stage.asks() for _ in range(5)))
    assert [answer.allowed for answer in answers] == [False] * 5
    assert [str(error) for error in stage.crashes()] == ["a defect"]
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_a_flight_that_is_cancelled_answers_everybody_by_policy() -> None:
    stage = Stage()
    stage.backend.says(HANG)
    waiting = [stage.soon() for _ in range(3)]
    await settled()
    await stage.gateway.drain(0)
    assert [(await each).allowed for each in waiting] == [False] * 3
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_a_crashed_flight_falls_back_on_what_is_remembered() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    stage.backend.says(crash)
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_who_joined_an_old_flight_and_was_let_down_has_a_question_of_his_own() -> None:
    stage = Stage()
    stage.backend.says(after(2.0, broken()))
    first = stage.soon()
    await stage.passes(1.0)
    late = stage.soon()
    assert (await first).allowed is False
    answer = await late
    assert (answer.allowed, answer.source) == (True, Source.BACKEND)
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_who_was_let_down_twice_is_refused_within_his_deadline() -> None:
    stage = Stage()
    stage.backend.always(HANG)
    first = stage.soon()
    await stage.passes(1.0)
    begun = now()
    assert (await stage.asks()).allowed is False
    assert now() - begun < 4.0
    assert (await first).allowed is False


@in_virtual_time
async def test_a_newcomer_is_not_let_down_by_how_little_time_the_leader_of_his_flight_had_left() -> None:
    stage = Stage()
    stage.backend.always(after(1.0, allow()))
    early = stage.query(DECISION, roomName="standup", userJid="alice@example.com/phone")
    await stage.passes(3.7)  # its body took so long to arrive
    leader = asyncio.ensure_future(stage.gateway.resolve(early))
    await settled()
    assert (await stage.asks()).allowed is True
    assert (await leader).allowed is False


@in_virtual_time
async def test_callers_without_time_left_do_not_open_the_breaker() -> None:
    stage = Stage()
    stage.backend.always(after(0.4, allow()))
    for number in range(30):
        query = stage.query(DECISION, roomName=f"room-{number}", userJid="alice@example.com")
        await stage.passes(3.8)
        await stage.gateway.resolve(query)
    assert stage.moves() == []


@in_virtual_time
async def test_a_flight_that_ended_this_very_moment_is_not_joined_in_a_circle() -> None:
    stage = Stage()
    answers = await asyncio.gather(*(stage.asks() for _ in range(3)))
    assert all(answer.allowed for answer in answers)


# --- guests ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_guests_of_one_room_share_an_answer() -> None:
    stage = Stage(anonymous=frozenset({"guest.example.com"}))
    await stage.asks("x1@guest.example.com")
    assert (await stage.asks("x2@guest.example.com")).source is Source.HIT
    assert (await stage.asks("x3@example.com", guest=True)).source is Source.HIT
    assert len(stage.backend.calls) == 1


@in_virtual_time
async def test_guests_of_another_room_do_not() -> None:
    stage = Stage(anonymous=frozenset({"guest.example.com"}))
    await stage.asks("x1@guest.example.com")
    stage.backend.says(deny())
    assert (await stage.asks("x2@guest.example.com", "board")).allowed is False


@in_virtual_time
async def test_a_private_answer_is_for_one_guest_also_among_those_who_waited_for_it_together() -> None:
    stage = Stage()
    stage.backend.says(after(0.2, allow("private")), deny("Not you"), deny("Nor you"))
    answers = await asyncio.gather(*(stage.asks(f"x{n}@guest.example.com", guest=True) for n in range(3)))
    assert [answer.allowed for answer in answers] == [True, False, False]
    assert {reason(answer) for answer in answers[1:]} == {"Not you", "Nor you"}
    assert len(stage.backend.calls) == 3


@in_virtual_time
async def test_after_a_private_answer_each_guest_is_asked_about_and_remembered_alone() -> None:
    stage = Stage()
    stage.backend.says(allow("private"), deny())
    await stage.asks("x1@guest.example.com", guest=True)
    assert (await stage.asks("x2@guest.example.com", guest=True)).allowed is False
    assert (await stage.asks("x2@guest.example.com", guest=True)).source is Source.HIT
    assert (await stage.asks("x9@guest.example.com", guest=True)).source is Source.BACKEND
    assert len(stage.backend.calls) == 3


@in_virtual_time
async def test_a_private_refresh_takes_the_shared_answer_away() -> None:
    stage = Stage()
    await stage.asks("x1@guest.example.com", guest=True)
    await stage.passes(16)
    stage.backend.says(allow("private"), deny())
    await stage.asks("x1@guest.example.com", guest=True)
    await settled()
    assert (await stage.asks("x2@guest.example.com", guest=True)).allowed is False


@in_virtual_time
async def test_an_older_private_allow_does_not_bring_back_a_guest_who_was_denied_since() -> None:
    stage = Stage()
    old = stage.backend.hold()
    first = stage.soon("x1@guest.example.com", guest=True)
    await settled()
    await stage.gateway.purge(Selector(subject="guest"))
    stage.backend.says(allow("private"), deny("Removed"))
    await stage.asks("x2@guest.example.com", guest=True)
    assert (await stage.asks("x1@guest.example.com", guest=True)).allowed is False
    old.comes(allow("private"))
    assert (await first).allowed is False
    assert (await stage.asks("x1@guest.example.com", guest=True)).allowed is False


@in_virtual_time
async def test_private_means_nothing_for_one_who_is_known() -> None:
    stage = Stage()
    stage.backend.says(allow("private"))
    await stage.asks("alice@example.com")
    assert (await stage.asks("alice@example.com")).source is Source.HIT


# --- the breaker -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_while_the_breaker_is_open_an_unknown_user_is_refused_at_once_and_nobody_is_asked() -> None:
    stage = Stage()
    await stage.trip()
    begun = now()
    answer = await stage.asks()
    assert (now() - begun, answer.allowed, stage.backend.calls) == (0, False, [])
    assert cache_status(answer) == "prosody-sidecar; detail=refused"


@in_virtual_time
async def test_while_the_breaker_is_open_whoever_was_let_in_is_let_in_at_every_age() -> None:
    for age in (1, 20, 3000):
        stage = Stage()
        await stage.asks()
        await stage.passes(age)
        await stage.trip()
        assert (await stage.asks()).allowed is True
        assert stage.backend.calls == []


@in_virtual_time
async def test_while_the_breaker_is_open_a_suspect_allow_answers() -> None:
    stage = Stage()
    await a_room_with_a_deny(stage)
    await stage.trip()
    assert (await stage.asks("user-0@example.com")).detail == "suspect"


@in_virtual_time
async def test_the_first_question_after_the_pause_is_the_probe_and_its_success_serves_everybody() -> None:
    stage = Stage()
    await stage.trip()
    await stage.passes(3.7)
    stage.backend.always(after(0.2, allow()))
    answers = await asyncio.gather(*(stage.asks(f"user-{n}@example.com", f"room-{n}") for n in range(50)))
    assert all(answer.allowed for answer in answers)
    assert stage.moves() == ["open", "closed"]


@in_virtual_time
async def test_while_a_probe_is_out_an_unknown_user_waits_half_a_second_at_the_most() -> None:
    stage = Stage()
    await stage.trip()
    await stage.passes(3.7)
    stage.backend.always(HANG)
    probe = stage.soon("prober@example.com", "room-1")
    await settled()
    begun = now()
    answer = await stage.asks("other@example.com", "room-2")
    assert answer.allowed is False
    assert now() - begun == pytest.approx(0.5, abs=0.01)
    assert len(stage.backend.calls) == 1
    await probe


@in_virtual_time
async def test_while_a_probe_is_out_a_known_user_waits_for_nothing() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    await stage.trip()
    await stage.passes(3.7)
    stage.backend.always(HANG)
    probe = stage.soon("prober@example.com", "room-1")
    await settled()
    begun = now()
    assert (await stage.asks()).allowed is True
    assert now() == begun
    await probe


@in_virtual_time
async def test_a_probe_that_fails_lets_nobody_wait_any_longer() -> None:
    stage = Stage()
    await stage.trip()
    await stage.passes(3.7)
    stage.backend.always(after(0.1, broken()))
    probe = stage.soon("prober@example.com", "room-1")
    await settled()
    begun = now()
    assert (await stage.asks("other@example.com", "room-2")).allowed is False
    assert now() - begun == pytest.approx(0.1, abs=0.01)
    assert (await probe).allowed is False
    assert stage.moves() == ["open", "open"]


@in_virtual_time
async def test_with_something_stale_at_hand_the_probe_goes_behind_the_answer() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(100)
    await stage.trip()
    await stage.passes(3.7)
    stage.backend.always(after(1, allow()))
    begun = now()
    assert (await stage.asks()).source is Source.STALE
    assert now() == begun
    await stage.passes(1.1)
    assert stage.moves() == ["open", "closed"]


@in_virtual_time
async def test_a_prober_that_hangs_up_does_not_wedge_the_breaker() -> None:
    stage = Stage()
    await stage.trip()
    await stage.passes(3.7)
    stage.backend.always(HANG)
    probe = stage.soon("prober@example.com", "room-1")
    await settled()
    probe.cancel()
    await stage.gateway.drain(0)
    stage.backend.well()
    assert (await stage.asks("other@example.com", "room-2")).allowed is True
    assert stage.moves() == ["open", "closed"]


@in_virtual_time
async def test_a_probe_does_not_join_a_flight_from_before_the_outage() -> None:
    stage = Stage(breaker=BreakerRules(slow_after=0.2, open_for=0.5))
    stage.backend.always(HANG)
    hanging = [stage.soon(f"u{n}@example.com", f"room-{n}") for n in range(12)]
    await stage.passes(1.0)
    assert stage.moves() == ["open"]
    stage.backend.well()
    answer = await stage.asks("u0@example.com", "room-0")
    assert answer.allowed is True
    await asyncio.gather(*hanging)


@in_virtual_time
async def test_a_late_success_from_before_the_trip_does_not_close_the_breaker() -> None:
    stage = Stage()
    held = stage.backend.hold()
    early = stage.soon("early@example.com", "early")
    await settled()
    await stage.passes(0.1)
    stage.backend._script.clear()
    await stage.trip()
    held.comes(allow())
    assert (await early).allowed is True
    assert stage.lanes[DECISION].permit(stage.clock.monotonic(), "x") is Permit.OPEN


@in_virtual_time
async def test_a_hanging_backend_opens_the_breaker_as_soon_as_it_is_slow() -> None:
    stage = Stage()
    stage.backend.always(HANG)
    hanging = [stage.soon(f"u{n}@example.com", f"room-{n}") for n in range(12)]
    await stage.passes(2.1)
    assert stage.moves() == ["open"]
    begun = now()
    assert (await stage.asks("new@example.com", "new")).allowed is False
    assert now() == begun
    await asyncio.gather(*hanging)


@in_virtual_time
async def test_those_who_wait_for_a_place_when_the_breaker_opens_are_answered_at_once() -> None:
    stage = Stage(max_in_flight=12)
    stage.backend.always(HANG)
    begun = now()
    took: dict[int, float] = {}

    async def one(number: int) -> None:
        answer = await stage.asks(f"u{number}@example.com", f"room-{number}")
        assert answer.allowed is False
        took[number] = now() - begun

    await asyncio.gather(*(one(number) for number in range(40)))
    assert len(stage.backend.calls) == 12
    assert all(took[number] < 2.1 for number in range(12, 40))


@in_virtual_time
async def test_a_known_user_who_waits_for_a_place_when_the_breaker_opens_is_answered_from_memory() -> None:
    stage = Stage(max_in_flight=4, breaker=BreakerRules(minimum_calls=4))
    await a_room_with_a_deny(stage)
    stage.backend.always(HANG)
    hanging = [stage.soon(f"u{number}@example.com", f"room-{number}") for number in range(8)]
    await settled()
    begun = now()
    answer = await stage.asks("user-0@example.com")
    assert (answer.allowed, answer.detail) == (True, "suspect")
    assert now() - begun == pytest.approx(2.0, abs=0.01)
    await asyncio.gather(*hanging)


@in_virtual_time
async def test_retry_after_is_obeyed_up_to_its_cap() -> None:
    for asked, back_at in ((10.0, 10.0), (3600.0, 30.0)):
        stage = Stage()
        stage.backend.always(broken(429, retry_after=asked))
        for number in range(12):
            await stage.asks(f"u{number}@example.com", f"room-{number}")
        stage.backend.well()
        await stage.passes(back_at - 1)
        answer = await stage.asks()
        assert answer.allowed is False
        assert answer.retry_after in (1, 2)
        await stage.passes(1.1)
        assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_the_breaker_of_one_endpoint_says_nothing_of_the_other() -> None:
    stage = Stage()
    await stage.trip()
    assert (await stage.asks_config()).status == 200


@in_virtual_time
async def test_denies_and_rejections_are_a_backend_that_is_well() -> None:
    stage = Stage()
    stage.backend.always(deny())
    for number in range(50):
        await stage.asks(f"u{number}@example.com", f"room-{number}")
    stage.backend.always(rejected())
    for number in range(50):
        await stage.asks_config(f"room-{number}")
    assert stage.moves() + stage.moves(CONFIG) == []


@in_virtual_time
async def test_a_backend_that_distrusts_us_opens_the_breaker_and_a_mended_secret_closes_it_at_once() -> None:
    stage = Stage()
    stage.backend.always(DISTRUST)
    for number in range(12):
        assert (await stage.asks(f"u{number}@example.com", f"room-{number}")).allowed is False
    assert stage.moves() == ["open"]
    stage.backend.well()
    stage.lanes[DECISION].mended()
    assert (await stage.asks()).allowed is True


@in_virtual_time
async def test_mending_wakes_those_who_wait() -> None:
    stage = Stage()
    await stage.trip()
    await stage.passes(3.7)
    stage.backend.says(HANG)
    probe = stage.soon("prober@example.com", "room-1")
    await settled()
    waiting = stage.soon("other@example.com", "room-2")
    await settled()
    await stage.gateway.drain(0)
    assert (await probe).allowed is False
    assert (await waiting).allowed is True


# --- retries -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [REFUSED, RESET])
def test_a_decision_is_asked_once_more_after_a_lost_connection(failure: object) -> None:
    @in_virtual_time
    async def run() -> None:
        stage = Stage()
        stage.backend.says(failure)  # type: ignore[arg-type]
        assert (await stage.asks()).allowed is True
        assert [fact.retry for fact in stage.asked()] == [False, True]
        assert stage.moves() == []

    run()


@in_virtual_time
async def test_a_decision_is_asked_no_third_time() -> None:
    stage = Stage()
    stage.backend.says(RESET, RESET)
    assert (await stage.asks()).allowed is False
    assert len(stage.backend.calls) == 2


@in_virtual_time
async def test_settings_are_asked_for_again_only_if_nothing_was_sent() -> None:
    stage = Stage()
    stage.backend.says(REFUSED)
    assert (await stage.asks_config()).status == 200
    stage.backend.says(RESET)
    assert (await stage.asks_config("other")).status == 503
    assert len(stage.backend.calls) == 3


@pytest.mark.parametrize("failure", [broken(500), broken(503), broken(200), DISTRUST])
def test_an_answer_that_came_is_not_asked_for_again(failure: object) -> None:
    @in_virtual_time
    async def run() -> None:
        stage = Stage()
        stage.backend.says(failure)  # type: ignore[arg-type]
        await stage.asks()
        assert len(stage.backend.calls) == 1

    run()


@in_virtual_time
async def test_retries_are_a_tenth_of_the_first_attempts_and_five() -> None:
    stage = Stage(breaker=BreakerRules(minimum_calls=100_000))
    stage.backend.always(RESET)
    for number in range(200):
        await stage.asks(f"u{number}@example.com")
    retries = sum(fact.retry for fact in stage.asked())
    assert 20 <= retries <= 25
    assert len(stage.backend.calls) <= 200 * 1.1 + 5


# --- places ------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_thousand_users_of_one_room_at_once_are_all_answered_in_time() -> None:
    stage = Stage()
    stage.backend.always(after(0.05, allow()))
    begun = now()
    answers = await asyncio.gather(*(stage.asks(f"u{n}@example.com") for n in range(1000)))
    assert all(answer.allowed for answer in answers)
    assert now() - begun < 4.0
    assert stage.backend.most_at_once <= 64


@in_virtual_time
async def test_a_room_that_hangs_leaves_places_for_the_others() -> None:
    stage = Stage()
    stage.backend.always(HANG, room="broken")
    hanging = [stage.soon(f"u{n}@example.com", "broken") for n in range(500)]
    await settled()
    begun = now()
    answers = await asyncio.gather(*(stage.asks(f"v{n}@example.com", f"room-{n}") for n in range(30)))
    assert all(answer.allowed for answer in answers)
    assert now() == begun
    assert stage.moves() == []
    await asyncio.gather(*hanging)
    assert stage.backend.most_at_once <= 64


@in_virtual_time
async def test_a_refresh_behind_an_answer_takes_no_place_that_somebody_waits_for() -> None:
    stage = Stage(max_in_flight=8)
    for number in range(40):
        await stage.asks(f"u{number}@example.com", f"room-{number}")
    await stage.passes(16)
    stage.backend.always(after(1.0, allow()))
    for number in range(40):
        assert (await stage.asks(f"u{number}@example.com", f"room-{number}")).source is Source.STALE
    await settled()
    begun = now()
    assert (await stage.asks("new@example.com", "new")).allowed is True
    assert now() - begun == pytest.approx(1.0, abs=0.01)


@in_virtual_time
async def test_a_room_whose_settings_could_not_be_refreshed_for_want_of_a_place_is_told_later() -> None:
    lively = rules(allow=Lifetimes(5.0, 10.0, 86_400.0))
    stage = Stage(config=lively, max_in_flight=2)
    await stage.asks_config()
    await stage.passes(6)
    stage.backend.always(after(1.0, config()))
    busy = [asyncio.ensure_future(stage.asks_config(f"room-{number}")) for number in range(2)]
    await settled()
    assert (await stage.asks_config()).source is Source.STALE
    await asyncio.gather(*busy)
    assert [query.key.room for query in stage.told_later] == ["standup"]


# --- purge -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_after_a_purge_the_next_question_asks_the_backend() -> None:
    stage = Stage()
    await stage.asks()
    await stage.asks("bob@example.com", "board")
    assert await stage.gateway.purge(Selector(room="standup")) == 1
    stage.backend.says(deny())
    assert (await stage.asks()).allowed is False
    assert (await stage.asks("bob@example.com", "board")).source is Source.HIT


@in_virtual_time
async def test_an_answer_that_was_under_way_when_its_room_was_purged_is_not_remembered() -> None:
    stage = Stage()
    stage.backend.says(after(1, allow()), deny("Cancelled"))
    waiting = stage.soon()
    await settled()
    await stage.gateway.purge(Selector(room="standup"))
    assert (await waiting).allowed is True
    answer = await stage.asks()
    assert (answer.allowed, answer.source) == (False, Source.BACKEND)


@in_virtual_time
async def test_who_asks_after_a_purge_does_not_join_a_question_from_before_it() -> None:
    stage = Stage()
    stage.backend.says(after(1, allow()), deny("Cancelled"))
    waiting = stage.soon()
    await settled()
    await stage.gateway.purge(Selector(room="standup"))
    assert (await stage.asks()).allowed is False
    await waiting
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_looking_changes_nothing() -> None:
    stage = Stage()
    await stage.asks()
    await stage.passes(16)
    key = stage.query(DECISION, roomName="standup", userJid="alice@example.com").key
    view = stage.gateway.preview(key)
    assert (view.permit, view.plan.refresh) == (Permit.CLOSED, True)
    assert len(stage.backend.calls) == 1


# --- other limits for other rooms -------------------------------------------------------------------------------


@in_virtual_time
async def test_shorter_limits_hold_for_what_is_remembered_already() -> None:
    stage = Stage()
    await stage.asks()
    stage.decision = rules(allow=Lifetimes(1.0, 0.0, 0.0))
    await stage.passes(2)
    stage.backend.always(broken())
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_longer_limits_do_not_revive_what_was_stored_under_shorter_ones() -> None:
    stage = Stage(decision=rules(allow=Lifetimes(1.0, 0.0, 0.0)))
    await stage.asks()
    stage.decision = rules()
    await stage.passes(2)
    stage.backend.always(broken())
    assert (await stage.asks()).allowed is False


@in_virtual_time
async def test_an_operators_default_settings_are_used_only_when_nothing_is_remembered() -> None:
    stage = Stage(config=rules(on_unavailable=OnUnavailable.DEFAULT, default_body=b"{}", allow=CONFIG_RULES.allow))
    await stage.asks_config()
    await stage.passes(100)
    stage.backend.always(broken())
    assert (await stage.asks_config()).source is Source.STALE
