"""The resolver behind an open, half-open and closing breaker."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.breaker import BreakerRules, Permit
from sidecar.core.model import Failure, Outcome, Query, Source, Unavailable
from sidecar.web.responses import cache_status
from tests.unit.harness import (
    CONFIG,
    DECISION,
    DISTRUST,
    FRESH,
    HANG,
    SWR,
    Harness,
    a_room_with_a_deny,
    after,
    allow,
    broken,
    deny,
    now,
    rejected,
    settled,
)
from tests.unit.virtual import VirtualLoop, in_virtual_time


@in_virtual_time
async def test_while_the_breaker_is_open_an_unknown_user_is_refused_at_once_and_nobody_is_asked() -> None:
    harness = Harness()
    await harness.trip()
    begun = now()
    answer = await harness.asks()
    assert (now() - begun, answer.allowed, harness.backend.calls) == (0, False, [])
    assert cache_status(answer) == "prosody-sidecar; detail=refused"


@in_virtual_time
async def test_while_the_breaker_is_open_whoever_was_let_in_is_let_in_at_every_age() -> None:
    for age in (1, 20, 3000):
        harness = Harness()
        await harness.asks()
        await harness.passes(age)
        await harness.trip()
        assert (await harness.asks()).allowed is True
        assert harness.backend.calls == []


@in_virtual_time
async def test_while_the_breaker_is_open_a_suspect_allow_answers() -> None:
    harness = Harness()
    await a_room_with_a_deny(harness)
    await harness.trip()
    assert (await harness.asks("user-0@example.com")).detail == "suspect"


@in_virtual_time
async def test_the_first_question_after_the_pause_is_the_probe_and_its_success_serves_everybody() -> None:
    harness = Harness()
    await harness.half_opens()
    harness.backend.always(after(0.2, allow()))
    answers = await asyncio.gather(*(harness.asks(f"user-{n}@example.com", f"room-{n}") for n in range(50)))
    assert all(answer.allowed for answer in answers)
    assert harness.changes() == ["open", "closed"]


@in_virtual_time
async def test_while_a_probe_is_out_an_unknown_user_waits_half_a_second_at_the_most() -> None:
    harness = Harness()
    await harness.half_opens()
    probe = await harness.probes(HANG)
    begun = now()
    answer = await harness.asks("other@example.com", "room-2")
    assert answer.allowed is False
    assert now() - begun == pytest.approx(0.5, abs=0.01)
    assert len(harness.backend.calls) == 1
    await probe


@in_virtual_time
async def test_while_a_probe_is_out_a_known_user_waits_for_nothing() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(100)
    await harness.half_opens()
    probe = await harness.probes(HANG)
    begun = now()
    assert (await harness.asks()).allowed is True
    assert now() == begun
    await probe


@in_virtual_time
async def test_a_probe_that_fails_lets_nobody_wait_any_longer() -> None:
    harness = Harness()
    await harness.asks("somebody@example.com", "room-1")
    await harness.half_opens()
    probe = await harness.probes(after(0.1, broken()))
    begun = now()
    assert (await harness.asks("other@example.com", "room-2")).allowed is False
    assert now() - begun == pytest.approx(0.1, abs=0.01)
    assert (await probe).allowed is False
    assert harness.changes() == ["open", "open"]


@in_virtual_time
async def test_with_something_stale_at_hand_the_probe_goes_behind_the_answer() -> None:
    harness = Harness()
    await harness.asks()
    await harness.passes(100)
    await harness.half_opens()
    harness.backend.always(after(1, allow()))
    begun = now()
    assert (await harness.asks()).source is Source.STALE
    assert now() == begun
    await harness.passes(1.1)
    assert harness.changes() == ["open", "closed"]


@in_virtual_time
async def test_a_prober_that_hangs_up_does_not_wedge_the_breaker() -> None:
    harness = Harness()
    await harness.half_opens()
    probe = await harness.probes(HANG)
    probe.cancel()
    await harness.resolver.drain(0)
    harness.backend.well()
    assert (await harness.asks("other@example.com", "room-2")).allowed is True
    assert harness.changes() == ["open", "closed"]


@in_virtual_time
async def test_a_probe_does_not_join_a_call_from_before_the_outage() -> None:
    harness = Harness(breaker=BreakerRules(slow_after=0.2, open_for=0.5))
    harness.backend.always(HANG)
    hanging = [harness.soon(f"u{n}@example.com", f"room-{n}") for n in range(12)]
    await harness.passes(1.0)
    assert harness.changes() == ["open"]
    harness.backend.well()
    answer = await harness.asks("u0@example.com", "room-0")
    assert answer.allowed is True
    await asyncio.gather(*hanging)


@in_virtual_time
async def test_a_late_success_from_before_the_trip_does_not_close_the_breaker() -> None:
    harness = Harness()
    held = harness.backend.hold()
    early = harness.soon("early@example.com", "early")
    await settled()
    await harness.passes(0.1)
    harness.backend._script.clear()
    await harness.trip()
    held.comes(allow())
    assert (await early).allowed is True
    assert harness.guards[DECISION].permit(harness.clock.monotonic(), "x") is Permit.OPEN


@in_virtual_time
async def test_a_hanging_backend_opens_the_breaker_as_soon_as_it_is_slow() -> None:
    harness = Harness()
    harness.backend.always(HANG)
    hanging = [harness.soon(f"u{n}@example.com", f"room-{n}") for n in range(12)]
    await harness.passes(2.1)
    assert harness.changes() == ["open"]
    begun = now()
    assert (await harness.asks("new@example.com", "new")).allowed is False
    assert now() == begun
    await asyncio.gather(*hanging)


@in_virtual_time
async def test_those_who_wait_for_a_place_when_the_breaker_opens_are_answered_at_once() -> None:
    harness = Harness(max_in_flight=12)
    harness.backend.always(HANG)
    begun = now()
    took: dict[int, float] = {}

    async def one(number: int) -> None:
        answer = await harness.asks(f"u{number}@example.com", f"room-{number}")
        assert answer.allowed is False
        took[number] = now() - begun

    await asyncio.gather(*(one(number) for number in range(40)))
    assert len(harness.backend.calls) == 12
    assert all(took[number] < 2.1 for number in range(12, 40))


@in_virtual_time
async def test_a_known_user_who_waits_for_a_place_when_the_breaker_opens_is_answered_from_memory() -> None:
    harness = Harness(max_in_flight=4, breaker=BreakerRules(minimum_calls=4))
    await a_room_with_a_deny(harness)
    harness.backend.always(HANG)
    hanging = [harness.soon(f"u{number}@example.com", f"room-{number}") for number in range(8)]
    await settled()
    begun = now()
    answer = await harness.asks("user-0@example.com")
    assert (answer.allowed, answer.detail) == (True, "suspect")
    assert now() - begun == pytest.approx(2.0, abs=0.01)
    await asyncio.gather(*hanging)


@in_virtual_time
async def test_retry_after_is_obeyed_up_to_its_cap() -> None:
    for asked, back_at in ((10.0, 10.0), (3600.0, 30.0)):
        harness = Harness()
        harness.backend.always(broken(429, retry_after=asked))
        for number in range(12):
            await harness.asks(f"u{number}@example.com", f"room-{number}")
        harness.backend.well()
        await harness.passes(back_at - 1)
        answer = await harness.asks()
        assert answer.allowed is False
        assert answer.retry_after in (1, 2)
        await harness.passes(1.1)
        assert (await harness.asks()).allowed is True


@in_virtual_time
async def test_the_breaker_of_one_endpoint_says_nothing_of_the_other() -> None:
    harness = Harness()
    await harness.trip()
    assert (await harness.asks_config()).status == 200


@in_virtual_time
async def test_denies_and_rejections_are_a_backend_that_is_well() -> None:
    harness = Harness()
    harness.backend.always(deny())
    for number in range(50):
        await harness.asks(f"u{number}@example.com", f"room-{number}")
    harness.backend.always(rejected())
    for number in range(50):
        await harness.asks_config(f"room-{number}")
    assert harness.changes() + harness.changes(CONFIG) == []


@in_virtual_time
async def test_a_backend_that_distrusts_us_opens_the_breaker_and_a_fixed_secret_closes_it_at_once() -> None:
    harness = Harness()
    harness.backend.always(DISTRUST)
    for number in range(12):
        assert (await harness.asks(f"u{number}@example.com", f"room-{number}")).allowed is False
    assert harness.changes() == ["open"]
    harness.backend.well()
    harness.guards[DECISION].try_now()
    assert (await harness.asks()).allowed is True


@in_virtual_time
async def test_a_fix_wakes_those_who_wait() -> None:
    harness = Harness()
    await harness.half_opens()
    harness.backend.says(HANG)
    probe = harness.soon("prober@example.com", "room-1")
    await settled()
    waiting = harness.soon("other@example.com", "room-2")
    await settled()
    await harness.resolver.drain(0)
    assert (await probe).allowed is False
    assert (await waiting).allowed is True


@in_virtual_time
async def test_a_probe_that_fails_for_one_stranger_lets_the_next_question_ask_at_once() -> None:
    harness = Harness()
    await harness.asks("ann@example.com", "known")
    await harness.half_opens()
    held = harness.backend.hold()
    probe = harness.soon("mallory@example.com", "made-up")
    await settled()
    waiting = harness.soon("bob@example.com", "known")
    await settled()
    failed_at = now()
    held.comes(broken())
    assert (await waiting).allowed is True
    assert now() == failed_at
    await probe


@pytest.mark.parametrize(("stuck", "changes"), [(True, []), (False, ["open"])])
def test_a_time_out_while_this_process_was_stuck_is_not_the_backends(stuck: bool, changes: list[str]) -> None:
    @in_virtual_time
    async def case() -> None:
        async def times_out(query: Query, patience: float) -> Outcome:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            await asyncio.sleep(0.1)
            if stuck:
                loop.now += 1.0
            return Unavailable("no complete answer", Failure.TIMEOUT)

        harness = Harness()
        rooms = [f"room-{number}" for number in range(12)]
        for room in rooms:
            await harness.asks(f"{room}@example.com", room)
        await harness.passes(FRESH + SWR + 1)
        harness.backend.always(times_out)
        for room in rooms:
            await harness.asks(f"{room}@example.com", room)
        assert harness.changes() == changes

    case()


@pytest.mark.parametrize(("creators", "status"), [(1, 200), (3, 503)])
def test_one_user_who_creates_rooms_that_the_backend_fails_for_keeps_no_config_from_others(
    creators: int, status: int
) -> None:
    @in_virtual_time
    async def case() -> None:
        harness = Harness()
        harness.backend.always(broken(500))
        for number in range(40):
            await harness.passes(0.1)
            await harness.asks_config(f"made-up-{number}", creator=f"user-{number % creators}@example.com/phone")
        harness.backend.well()
        assert (await harness.asks_config(creator="alice@example.com/phone")).status == status

    case()
