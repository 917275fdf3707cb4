"""One endpoint's way to the backend: breaker, places and retries together, without a resolver."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.core.breaker import BreakerRules, Permit
from sidecar.core.classify import classify
from sidecar.core.concurrency import Cause
from sidecar.core.model import Carried, Failure, Outcome, Query, Released, Replied, Unavailable
from sidecar.facts import LimitChanged
from tests.unit.harness import CONFIG, DECISION, HANG, REFUSED, RESET, Harness, after, allow, broken, crash, settled
from tests.unit.virtual import VirtualClock, VirtualLoop, in_virtual_time


async def carry(
    harness: Harness, room: str = "standup", seconds: float = 4.0, *, in_background: bool = False
) -> Carried | Released:
    query = harness.query(DECISION, roomName=room, userJid=f"alice@{room}.example.com")
    return await harness.guards[DECISION].carry(
        query, harness.clock.monotonic() + seconds, None, in_background=in_background
    )


def soon(harness: Harness, room: str) -> asyncio.Task[Carried | Released]:
    return asyncio.ensure_future(carry(harness, room))


def outcome(result: Carried | Released) -> object:
    assert isinstance(result, Carried)
    return result.outcome


@in_virtual_time
async def test_a_question_is_sent_with_the_time_it_has_left() -> None:
    harness = Harness()
    assert isinstance(outcome(await carry(harness, seconds=3.0)), Replied)
    assert harness.backend.calls[0].seconds == pytest.approx(3.0, abs=0.01)


@in_virtual_time
async def test_what_was_asked_is_as_old_as_the_sending_and_not_as_the_waiting() -> None:
    harness = Harness(max_in_flight=2)
    harness.backend.always(after(1, allow()))
    first, second = soon(harness, "a"), soon(harness, "a")
    one, two = await first, await second
    assert isinstance(one, Carried)
    assert isinstance(two, Carried)
    assert two.asked_at - one.asked_at == pytest.approx(1, abs=0.01)


@in_virtual_time
async def test_waiting_for_a_place_does_not_count_as_slow() -> None:
    harness = Harness(max_in_flight=2, breaker=BreakerRules(minimum_calls=1, minimum_rooms=1))
    harness.backend.always(after(1.5, allow()))
    tasks = [soon(harness, "a") for _ in range(2)]
    assert [type(outcome(result)) for result in await asyncio.gather(*tasks)] == [Replied, Replied]
    assert harness.changes() == []


@in_virtual_time
async def test_who_gets_no_place_in_time_is_no_failure_of_the_backend() -> None:
    harness = Harness(max_in_flight=2, breaker=BreakerRules(slow_after=60, minimum_calls=2, minimum_rooms=1))
    harness.backend.always(HANG)
    holder = soon(harness, "a")
    await settled()
    for _ in range(5):
        result = await carry(harness, "a", 0.5)
        assert isinstance(outcome(result), Unavailable)
    assert len(harness.backend.calls) == 1
    assert harness.changes() == []
    holder.cancel()


@in_virtual_time
async def test_a_retry_counts_once_for_the_breaker() -> None:
    harness = Harness(breaker=BreakerRules(minimum_calls=4, minimum_rooms=1))
    harness.backend.always(RESET)
    for _ in range(3):
        await carry(harness)
    assert len(harness.backend.calls) == 6
    assert harness.changes() == []
    await carry(harness)
    assert harness.changes() == ["open"]


@in_virtual_time
async def test_a_failure_before_a_retry_that_succeeds_does_not_count() -> None:
    harness = Harness(breaker=BreakerRules(minimum_calls=2, minimum_rooms=1))
    for _ in range(4):
        harness.backend.says(REFUSED, allow())
        assert isinstance(outcome(await carry(harness)), Replied)
    assert harness.changes() == []


@in_virtual_time
async def test_a_call_is_a_failure_from_the_moment_it_is_slow_and_counts_once() -> None:
    harness = Harness(breaker=BreakerRules(minimum_calls=3, minimum_rooms=1, slow_after=1.0))
    harness.backend.always(after(2, broken()))
    tasks = [soon(harness, f"room-{n}") for n in range(2)]
    await asyncio.gather(*tasks)
    assert harness.changes() == []  # two calls, each slow and then failed, are two failures
    harness.backend.always(broken())
    await carry(harness)
    assert harness.changes() == ["open"]


@in_virtual_time
async def test_when_the_breaker_opens_those_who_wait_are_released_unasked() -> None:
    harness = Harness(max_in_flight=4, breaker=BreakerRules(minimum_calls=4, slow_after=1.0))
    harness.backend.always(HANG)
    tasks = [soon(harness, f"room-{n}") for n in range(10)]
    await asyncio.sleep(1.01)
    assert [isinstance(task.result(), Released) for task in tasks[4:]] == [True] * 6
    assert len(harness.backend.calls) == 4
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_a_place_that_comes_free_after_the_breaker_opened_is_not_used() -> None:
    harness = Harness(breaker=BreakerRules(minimum_calls=1, minimum_rooms=1))
    harness.backend.always(broken())
    await carry(harness)
    assert isinstance(await carry(harness), Released)
    assert len(harness.backend.calls) == 1
    assert harness.guards[DECISION].calls_under_way == 0


@in_virtual_time
async def test_the_probe_needs_no_place() -> None:
    harness = Harness(
        max_in_flight=1, breaker=BreakerRules(minimum_calls=1, minimum_rooms=1, slow_after=0.5, open_for=1)
    )
    harness.backend.always(HANG)
    holder = soon(harness, "a")
    await asyncio.sleep(1.9)
    harness.backend.well()
    guard, now = harness.guards[DECISION], harness.clock.monotonic()
    assert guard.permit(now, "b") is Permit.PROBE_FREE
    query = harness.query(DECISION, roomName="b", userJid="alice@example.com")
    result = await guard.carry(query, now + 4, guard.take_probe(now, "b"))
    assert isinstance(outcome(result), Replied)
    assert harness.changes() == ["open", "closed"]
    await holder


@in_virtual_time
async def test_a_call_that_crashes_or_is_cancelled_gives_its_place_and_its_probe_back() -> None:
    harness = Harness(breaker=BreakerRules(minimum_calls=1, minimum_rooms=1))
    harness.backend.says(crash)
    with pytest.raises(LookupError):
        await carry(harness)
    assert (harness.guards[DECISION].calls_under_way, harness.changes()) == (0, [])
    harness.backend.always(broken())
    await carry(harness)
    await asyncio.sleep(3.7)
    guard = harness.guards[DECISION]
    harness.backend.always(HANG)
    query = harness.query(DECISION, roomName="b", userJid="alice@example.com")
    ticket = guard.take_probe(harness.clock.monotonic(), "b")
    probe = asyncio.ensure_future(guard.carry(query, harness.clock.monotonic() + 4, ticket))
    await settled()
    assert guard.permit(harness.clock.monotonic(), "c") is Permit.PROBE_OUT
    probe.cancel()
    await settled()
    assert guard.permit(harness.clock.monotonic(), "c") is Permit.PROBE_FREE


@in_virtual_time
async def test_a_refresh_takes_a_spare_place_or_none() -> None:
    harness = Harness(max_in_flight=4)
    harness.backend.always(after(1, allow()))
    tasks = [soon(harness, "a"), soon(harness, "b")]
    await settled()
    result = await carry(harness, "c", in_background=True)
    assert isinstance(outcome(result), Unavailable)
    assert len(harness.backend.calls) == 2
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_more_places_after_a_reload_serve_those_who_wait() -> None:
    harness = Harness(max_in_flight=2)
    harness.backend.always(after(1, allow()))
    tasks = [soon(harness, "a") for _ in range(4)]
    await settled()
    assert len(harness.backend.calls) == 1
    harness.bulkhead.configure(8)
    await settled()
    assert len(harness.backend.calls) == 4
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_every_call_is_reported_with_what_came_of_it() -> None:
    harness = Harness()
    harness.backend.says(allow(), broken(503), RESET, REFUSED)
    for _ in range(3):
        await carry(harness)
    assert [(fact.outcome, fact.status, fact.retry) for fact in harness.asked()] == [
        ("replied", 200, False),
        ("unavailable", 503, False),
        ("unavailable", None, False),
        ("unavailable", None, True),
    ]


# ---- what does not count against the backend


ONE_IS_ENOUGH = BreakerRules(minimum_calls=1, minimum_rooms=1)


@in_virtual_time
async def test_a_time_out_of_a_call_that_waited_in_our_own_queue_does_not_count() -> None:
    harness = Harness(max_in_flight=2, breaker=ONE_IS_ENOUGH)
    harness.backend.always(after(1.0, allow()))
    first = soon(harness, "a")
    await settled()
    result = await carry(harness, "a", 1.5)  # 0.5 s are left when it is sent
    assert outcome(result) == Unavailable("no complete answer", Failure.TIMEOUT)
    assert harness.changes() == []
    await first


@in_virtual_time
async def test_a_time_out_of_a_call_that_had_all_its_time_counts() -> None:
    harness = Harness(breaker=ONE_IS_ENOUGH)
    harness.backend.always(HANG)
    await carry(harness, seconds=1.0)
    assert harness.changes() == ["open"]


@in_virtual_time
async def test_what_this_machine_could_not_send_does_not_count() -> None:
    harness = Harness(breaker=ONE_IS_ENOUGH)
    harness.backend.always(Unavailable("no file descriptor", Failure.OURS))
    for _ in range(20):
        await carry(harness)
    assert harness.changes() == []
    assert len(harness.backend.calls) == 20  # and is not repeated at once


@pytest.mark.parametrize("answer", [(404, b'{"error":"no such room"}'), (401, b'{"error":"who are you?"}')])
def test_a_client_error_in_json_is_a_proof_of_life(answer: tuple[int, bytes]) -> None:
    @in_virtual_time
    async def run() -> None:
        harness = Harness(breaker=ONE_IS_ENOUGH)
        harness.backend.always(classify(DECISION.kind, *answer))
        for number in range(20):
            await carry(harness, f"room-{number}")
        assert harness.changes() == []

    run()


class StoppedBackend:
    """While it is asked, this process stops for three seconds; its answer was there after 0.1 s."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock

    async def ask(self, query: Query, seconds: float) -> Outcome:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await asyncio.sleep(0.1)
        loop.now += 3.0  # nothing of this process runs
        await asyncio.sleep(0.01)
        return allow()


@in_virtual_time
async def test_a_call_is_not_slow_because_this_process_was_stopped() -> None:
    harness = Harness(breaker=ONE_IS_ENOUGH)
    guard = harness.guards[DECISION]
    guard._backend = StoppedBackend(harness.clock)
    assert isinstance(outcome(await carry(harness)), Replied)
    assert harness.changes() == []
    assert harness.bulkhead.limit.at(harness.clock.monotonic()) == 64


@in_virtual_time
async def test_both_endpoints_share_the_places() -> None:
    harness = Harness(max_in_flight=4)
    harness.backend.always(after(1, allow()))
    decisions = [soon(harness, room) for room in "abcd"]
    config = harness.query(CONFIG, roomName="e")
    created = asyncio.ensure_future(harness.guards[CONFIG].carry(config, harness.clock.monotonic() + 4, None))
    await settled()
    assert len(harness.backend.calls) == 4
    assert (harness.guards[CONFIG].calls_waiting, harness.guards[DECISION].calls_under_way) == (1, 4)
    await asyncio.gather(*decisions, created)
    assert harness.backend.most_at_once == 4


@in_virtual_time
async def test_a_change_of_the_limit_is_reported_with_its_cause() -> None:
    harness = Harness(max_in_flight=1000)
    harness.backend.always(after(0.2, allow()))
    await asyncio.gather(*(carry(harness, f"room-{number}") for number in range(300)))
    changes = [fact for fact in harness.facts if isinstance(fact, LimitChanged)]
    assert changes[0].cause is Cause.NEAR_FLOOR
    assert changes[0].limit > 100
