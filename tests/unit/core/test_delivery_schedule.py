"""Whose event is delivered next: rooms in turn, failing ones apart, and one at a time while the backend is down."""

from __future__ import annotations

import pytest

from sidecar.core.delivery_schedule import Pacing, Schedule

PACING = Pacing(max_in_flight=4, base=1.0, cap=8.0, probe_cap=4.0, down_after=3)


def a_schedule(*rooms: str, pacing: Pacing = PACING) -> Schedule:
    """Rooms that each have something to deliver."""
    schedule = Schedule(pacing)
    for room in rooms:
        schedule.add(room)
    return schedule


def take_all(schedule: Schedule, now: float = 0.0) -> list[str]:
    """Every room whose turn it is."""
    taken = []
    while (room := schedule.take(now)) is not None:
        taken.append(room)
    return taken


def fail(schedule: Schedule, room: str, now: float = 0.0, retry_after: float | None = None) -> None:
    """A failure without jitter."""
    schedule.failed(room, now, 0.0, retry_after)


def test_a_room_has_one_turn_at_a_time() -> None:
    schedule = a_schedule("a", "a")
    assert take_all(schedule) == ["a"]
    schedule.add("a")
    assert take_all(schedule) == []
    schedule.release("a", more=False)
    assert take_all(schedule) == ["a"]
    schedule.release("a", more=False)
    assert take_all(schedule) == []
    assert len(schedule) == 0


def test_rooms_with_more_go_to_the_back_of_the_queue() -> None:
    schedule = a_schedule("a", "b", pacing=Pacing(max_in_flight=1))
    assert schedule.take(0.0) == "a"
    schedule.release("a", more=True)
    assert schedule.take(0.0) == "b"
    schedule.release("b", more=False)
    assert schedule.take(0.0) == "a"


def test_no_more_rooms_are_in_flight_than_may_be() -> None:
    assert take_all(a_schedule(*"abcdefgh")) == list("abcd")


def test_a_room_that_failed_waits_twice_as_long_each_time_up_to_the_cap() -> None:
    schedule, now, waits = a_schedule("a"), 0.0, []
    for _ in range(6):
        assert schedule.take(now) == "a"
        fail(schedule, "a", now)
        wake_at = schedule.wake_at()
        assert wake_at is not None
        assert schedule.take(wake_at - 0.01) is None
        waits.append(wake_at - now)
        now = wake_at
    assert waits == [1, 2, 4, 8, 8, 8]


def test_a_room_that_succeeded_begins_again() -> None:
    schedule = a_schedule("a")
    for now in (0.0, 1.0):
        schedule.take(now)
        fail(schedule, "a", now)
    assert schedule.take(3.0) == "a"
    assert schedule.attempts("a") == 2
    schedule.succeeded("a")
    fail(schedule, "a", 3.0)
    assert schedule.wake_at() == 4.0


@pytest.mark.parametrize(("retry_after", "until"), [(30.0, 30.0), (0.2, 1.0), (1e9, 3600.0)])
def test_retry_after_is_honoured_within_reason(retry_after: float, until: float) -> None:
    schedule = a_schedule("a")
    schedule.take(0.0)
    fail(schedule, "a", 0.0, retry_after)
    assert schedule.wake_at() == until


def test_rooms_that_failed_hold_at_most_half_of_the_places() -> None:
    pacing = Pacing(max_in_flight=4, base=1.0, down_after=100)
    schedule = a_schedule("a", "b", "c", pacing=pacing)
    for room in take_all(schedule):
        fail(schedule, room)
    for room in "defg":
        schedule.add(room)
    taken = take_all(schedule, 5.0)
    assert len(taken) == 4
    assert len(set(taken) & set("abc")) == 2
    schedule.release("d", more=False)
    schedule.succeeded(next(iter(set(taken) & set("abc"))))
    assert len(take_all(schedule, 5.0)) == 1


def down(*rooms: str) -> Schedule:
    """A schedule whose rooms have all failed at 0."""
    schedule = a_schedule(*rooms)
    for _ in rooms:
        room = schedule.take(0.0)
        if room is None:
            break
        fail(schedule, room)
    return schedule


def test_when_three_rooms_failed_with_no_success_between_the_backend_is_down() -> None:
    assert not down("a", "b").down
    assert down("a", "b", "c").down
    schedule = a_schedule("a", "b", "c", "d")
    for room in take_all(schedule)[:2]:
        fail(schedule, room)
    schedule.succeeded("c")
    fail(schedule, "d")
    assert not schedule.down


def test_while_it_is_down_one_room_tries_at_a_time_less_and_less_often() -> None:
    schedule, now, waits = down(*"abcdef"), 0.0, []
    for _ in range(6):
        wake_at = schedule.wake_at()
        assert wake_at is not None
        waits.append(wake_at - now)
        now = wake_at
        (room,) = take_all(schedule, now)
        assert schedule.wake_at() is None
        fail(schedule, room, now)
    assert waits[-3:] == [4, 4, 4]


def test_while_it_is_down_nobody_waits_longer_than_a_room_may() -> None:
    schedule, now = a_schedule(*"abc", pacing=Pacing(base=1.0, cap=2.0, probe_cap=60.0)), 0.0
    for _ in range(9):
        room = schedule.take(now)
        assert room is not None
        fail(schedule, room, now)
        wake_at = schedule.wake_at()
        assert wake_at is not None
        assert wake_at - now <= 2.0
        now = wake_at if schedule.down else now


def test_while_it_is_down_every_room_has_its_try() -> None:
    schedule, now, tried = down(*"abc"), 0.0, []
    for _ in range(6):
        now = schedule.wake_at() or 0.0
        (room,) = take_all(schedule, now)
        tried.append(room)
        fail(schedule, room, now)
    assert sorted(tried) == list("aabbcc")


def test_a_room_that_has_not_failed_yet_need_not_wait_as_long() -> None:
    schedule = down(*"abc")
    for now in (1.0, 3.0, 7.0):
        for room in take_all(schedule, now):
            fail(schedule, room, now)
    schedule.add("new")
    assert schedule.wake_at() == 8.0
    assert take_all(schedule, 8.0) == ["new"]


def test_when_one_succeeds_all_may_go_however_long_they_would_have_waited() -> None:
    schedule, now = down(*"abc"), 0.0
    for _ in range(9):
        now = schedule.wake_at() or 0.0
        (room,) = take_all(schedule, now)
        fail(schedule, room, now)
    now = schedule.wake_at() or 0.0
    (room,) = take_all(schedule, now)
    assert take_all(schedule, now) == []
    schedule.succeeded(room)
    assert not schedule.down
    assert sorted([room, *take_all(schedule, now)]) == ["a", "b", "c"]


def test_rooms_with_a_retry_after_wait_even_when_the_backend_is_up_again() -> None:
    schedule = a_schedule("a", "b", "c")
    take_all(schedule)
    fail(schedule, "a", 0.0, 60.0)
    fail(schedule, "b")
    fail(schedule, "c")
    schedule.nudge()
    assert take_all(schedule, 0.5) == ["b"]
    schedule.succeeded("b")
    assert take_all(schedule, 0.5) == ["c"]
    schedule.release("b", more=False)
    schedule.succeeded("c")
    schedule.release("c", more=False)
    assert take_all(schedule, 59.0) == []
    assert take_all(schedule, 60.0) == ["a"]


def test_a_turn_that_ended_for_a_reason_of_our_own_is_no_failure() -> None:
    schedule = a_schedule("a")
    schedule.take(0.0)
    schedule.postponed("a", 1.0)
    assert schedule.attempts("a") == 0
    assert schedule.take(0.5) is None
    assert schedule.take(1.0) == "a"
