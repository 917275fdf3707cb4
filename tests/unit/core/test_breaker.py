"""The circuit breaker of one endpoint: when it opens, when it tries again, and that nothing wedges it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.breaker import HOLD_BACK, REMEMBERED_ROOMS, Breaker, BreakerRules, Permit, Ticket
from sidecar.core.model import Asker
from tests.unit.builders import breaker_rules

GUEST, ALICE = Asker("x1@guest.example.com", guest=True), Asker("alice@example.com")

THREE_ROOMS = ("lobby", "standup", "retro")


KNOWN = (*THREE_ROOMS, "broken", "worse", "only", "one", "other")


def a_breaker(rules: BreakerRules | None = None) -> Breaker:
    """A closed breaker with the rules of the contract, to which the rooms of most tests are known."""
    return Breaker(rules or breaker_rules(), KNOWN)


def succeed(breaker: Breaker, now: float, rooms: Iterable[str]) -> None:
    """One good call in each of these rooms."""
    for room in rooms:
        breaker.succeed(now, breaker.admit(now, room))


def fail(breaker: Breaker, now: float, rooms: Iterable[str], jitter: float = 0.0) -> list[bool]:
    """One failed call in each of these rooms; whether each of them opened the breaker."""
    return [breaker.fail(now, breaker.admit(now, room), jitter) for room in rooms]


def around(count: int, rooms: tuple[str, ...] = THREE_ROOMS) -> list[str]:
    """So many calls, spread over some rooms."""
    return [rooms[number % len(rooms)] for number in range(count)]


def an_open_breaker(now: float = 100.0, jitter: float = 0.0, rules: BreakerRules | None = None) -> Breaker:
    """A breaker that opened at this instant; with no jitter it is half-open 2.7 s later."""
    breaker = a_breaker(rules)
    fail(breaker, now, around(10), jitter)
    assert breaker.open_until() is not None
    return breaker


def a_half_open_breaker() -> Breaker:
    """A breaker whose probe is due at 102.7."""
    return an_open_breaker()


DUE = 102.7


# ---- closed


def test_it_starts_closed() -> None:
    assert a_breaker().permit(0.0, "lobby") is Permit.CLOSED
    assert a_breaker().open_until() is None


def test_it_opens_with_the_tenth_failure_without_a_success_between() -> None:
    breaker = a_breaker()
    assert fail(breaker, 100.0, around(10)) == [False] * 9 + [True]
    assert breaker.permit(100.0, "lobby") is Permit.OPEN


def test_a_success_ends_a_run_of_failures() -> None:
    breaker = a_breaker(breaker_rules(failure_ratio=1.0))
    fail(breaker, 100.0, around(9))
    succeed(breaker, 100.0, ["lobby"])
    assert fail(breaker, 100.0, around(9)) == [False] * 9
    assert fail(breaker, 100.0, ["lobby"]) == [True]


def test_a_run_of_failures_counts_however_many_successes_came_before() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, around(1000))
    assert fail(breaker, 102.0, around(10))[-1]


def test_a_run_of_failures_counts_however_long_it_takes() -> None:
    breaker = a_breaker()
    moved = [fail(breaker, 100.0 + 60 * number, [room]) for number, room in enumerate(around(10))]
    assert moved[-1] == [True]


def test_it_opens_when_half_of_the_window_failed() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, around(5))
    fail(breaker, 100.0, around(2))
    succeed(breaker, 100.0, around(1))
    assert fail(breaker, 100.0, around(4)) == [False] * 3 + [True]


def test_it_stays_closed_while_less_than_half_of_the_window_failed() -> None:
    breaker = a_breaker()
    for _ in range(50):
        succeed(breaker, 100.0, around(6))
        assert not any(fail(breaker, 100.0, around(5)))


def test_it_stays_closed_while_there_are_too_few_calls_to_tell() -> None:
    assert not any(fail(a_breaker(), 100.0, around(9)))


def test_failures_older_than_the_window_are_forgotten() -> None:
    breaker = a_breaker()
    fail(breaker, 100.0, around(9))
    succeed(breaker, 110.1, around(1))
    assert not any(fail(breaker, 110.1, around(8)))
    assert fail(breaker, 110.1, around(1)) == [True]


def test_failures_older_than_the_window_do_not_count_towards_the_ratio() -> None:
    breaker = a_breaker()
    fail(breaker, 100.0, around(9))
    succeed(breaker, 111.0, around(10))
    assert not any(fail(breaker, 111.0, around(3)))


def test_a_room_that_failed_before_the_window_is_not_one_that_fails() -> None:
    breaker = a_breaker()
    fail(breaker, 100.0, ["retro"])
    succeed(breaker, 101.0, ["retro"])
    breaker.admit(112.0, "retro")
    assert not any(fail(breaker, 112.0, ["broken", "lobby"] * 20))


def test_failures_just_within_the_window_count() -> None:
    breaker = a_breaker()
    fail(breaker, 100.0, around(9))
    succeed(breaker, 109.9, around(1))
    assert fail(breaker, 110.0, around(1)) == [True]


def test_one_broken_room_shuts_out_nobody_else() -> None:
    breaker = a_breaker()
    for _ in range(100):
        assert not any(fail(breaker, 100.0, ["broken"] * 3))
        succeed(breaker, 100.0, ["lobby", "standup"])


def test_one_broken_room_is_not_a_run_of_failures_while_others_are_asked() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, ["lobby", "standup"])
    assert not any(fail(breaker, 101.0, ["broken"] * 50))


def test_two_broken_rooms_are_not_enough_either() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, ["lobby"])
    assert not any(fail(breaker, 100.0, around(50, ("broken", "worse"))))
    assert fail(breaker, 100.0, ["lobby"]) == [True]


def test_one_broken_room_and_single_failures_in_two_others_do_not_open_it() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, around(40))
    fail(breaker, 100.0, ["lobby", "standup"])
    succeed(breaker, 100.0, around(1))
    assert not any(fail(breaker, 100.0, ["broken"] * 500))


def test_half_of_the_window_must_have_failed_also_without_the_two_worst_rooms() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, ["lobby"] * 5)
    fail(breaker, 100.0, ["broken", "worse"] * 8)
    succeed(breaker, 100.0, ["standup"])
    assert fail(breaker, 100.0, ["lobby"] * 6) == [False] * 5 + [True]


@pytest.mark.parametrize("rooms", [("only",), ("one", "other")])
def test_where_fewer_rooms_are_asked_fewer_need_to_fail(rooms: tuple[str, ...]) -> None:
    assert fail(a_breaker(), 100.0, around(10, rooms)) == [False] * 9 + [True]


def test_a_room_that_was_asked_and_did_not_answer_yet_counts_as_asked() -> None:
    breaker = a_breaker()
    waiting = [breaker.admit(100.0, room) for room in ("lobby", "standup")]
    assert not any(fail(breaker, 100.0, ["broken"] * 50))
    for ticket in waiting:
        breaker.abandon(ticket)
    assert fail(breaker, 100.0, ["broken"]) == [True]


def test_a_call_nobody_ever_reports_counts_as_asked_for_no_longer_than_the_window() -> None:
    breaker = a_breaker()
    breaker.admit(100.0, "lobby")
    breaker.admit(100.0, "standup")
    assert not any(fail(breaker, 110.0, ["broken"] * 10))
    assert fail(breaker, 110.1, ["broken"]) == [True]


def test_rooms_that_were_asked_long_ago_do_not_count_as_asked() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, ["lobby", "standup"])
    assert fail(breaker, 111.0, ["broken"] * 10)[-1]


def test_a_call_that_has_become_slow_counts_as_failed_even_if_it_succeeds_later() -> None:
    breaker = a_breaker()
    calls = [breaker.admit(100.0, room) for room in around(10)]
    assert [breaker.fail(102.0, ticket, 0.0) for ticket in calls] == [False] * 9 + [True]
    assert not any(breaker.succeed(102.1, ticket) for ticket in calls)
    assert breaker.permit(102.1, "lobby") is Permit.OPEN


def test_a_late_success_does_not_take_back_that_a_call_was_slow() -> None:
    breaker = a_breaker()
    calls = [breaker.admit(100.0, room) for room in around(9)]
    for ticket in calls:
        breaker.fail(102.0, ticket, 0.0)
        breaker.succeed(102.1, ticket)
    assert fail(breaker, 102.2, ["lobby"]) == [True]


def test_a_call_counts_once_however_often_it_is_reported() -> None:
    breaker = a_breaker()
    ticket = breaker.admit(100.0, "lobby")
    assert not any(breaker.fail(100.0, ticket, 0.0) for _ in range(50))


def test_an_abandoned_call_says_nothing() -> None:
    breaker = a_breaker()
    for room in around(50):
        ticket = breaker.admit(100.0, room)
        breaker.abandon(ticket)
        assert not breaker.fail(100.0, ticket, 0.0)
    assert breaker.permit(100.0, "lobby") is Permit.CLOSED


# ---- open


@pytest.mark.parametrize(("jitter", "until"), [(0.0, 102.7), (0.5, 103.15), (1.0, 103.6)])
def test_it_stays_open_for_three_seconds_times_09_to_12(jitter: float, until: float) -> None:
    assert an_open_breaker(jitter=jitter).open_until() == pytest.approx(until)


@given(st.floats(0, 1), st.floats(0.1, 60))
def test_the_jitter_stays_within_its_range(jitter: float, open_for: float) -> None:
    until = an_open_breaker(jitter=jitter, rules=BreakerRules(open_for=open_for)).open_until()
    assert until is not None
    assert 0.9 * open_for - 1e-9 <= until - 100.0 <= 1.2 * open_for + 1e-9


def test_while_it_is_open_nobody_is_permitted_to_ask() -> None:
    breaker = an_open_breaker()
    assert {breaker.permit(now, room) for now in (100.0, 101.0, 102.69) for room in THREE_ROOMS} == {Permit.OPEN}


@pytest.mark.parametrize(("retry_after", "until"), [(10.0, 110.0), (300.0, 130.0), (1.0, 102.7), (0.0, 102.7)])
def test_it_stays_open_as_long_as_the_backend_asks_up_to_a_cap(retry_after: float, until: float) -> None:
    breaker = a_breaker()
    fail(breaker, 100.0, around(9))
    assert breaker.fail(100.0, breaker.admit(100.0, "lobby"), 0.0, retry_after)
    assert breaker.open_until() == pytest.approx(until)


def test_it_heeds_what_any_of_the_failures_asked_for_not_just_the_last() -> None:
    breaker = a_breaker()
    breaker.fail(100.0, breaker.admit(100.0, "lobby"), 0.0, retry_after=20.0)
    breaker.fail(100.0, breaker.admit(100.0, "lobby"), 0.0, retry_after=5.0)
    fail(breaker, 101.0, around(8, ("standup", "retro")))
    assert breaker.open_until() == pytest.approx(120.0)


def test_a_success_cancels_an_earlier_retry_after() -> None:
    """Otherwise one room that has to wait half a minute would stretch every short outage of all the others."""
    breaker = a_breaker()
    breaker.fail(100.0, breaker.admit(100.0, "lobby"), 0.0, 30.0)
    succeed(breaker, 101.0, ["standup"])
    fail(breaker, 102.0, around(10))
    assert breaker.open_until() == pytest.approx(104.7)


def test_a_probe_may_be_asked_to_wait_too() -> None:
    breaker = a_half_open_breaker()
    assert breaker.fail(103.0, breaker.admit(103.0, "lobby"), 0.0, retry_after=12.0)
    assert breaker.open_until() == pytest.approx(115.0)


def test_when_an_operator_has_fixed_something_an_old_retry_after_is_forgotten() -> None:
    breaker = a_breaker()
    fail(breaker, 100.0, around(9))
    breaker.fail(100.0, breaker.admit(100.0, "lobby"), 0.0, retry_after=30.0)
    breaker.try_now(101.0)
    breaker.fail(101.0, breaker.admit(101.0, "lobby"), 0.0)
    assert breaker.open_until() == pytest.approx(103.7)


# ---- half-open


def test_when_its_time_has_come_one_probe_is_free() -> None:
    assert a_half_open_breaker().permit(DUE, "lobby") is Permit.PROBE_FREE


def test_while_the_probe_is_out_everybody_else_waits() -> None:
    breaker = a_half_open_breaker()
    breaker.admit(DUE, "lobby")
    assert {breaker.permit(DUE + 1.0, room) for room in THREE_ROOMS} == {Permit.PROBE_OUT}


def test_a_probe_that_fares_well_closes_it_for_everybody() -> None:
    breaker = a_half_open_breaker()
    assert breaker.succeed(DUE + 0.1, breaker.admit(DUE, "lobby"))
    assert {breaker.permit(DUE + 0.1, room) for room in THREE_ROOMS} == {Permit.CLOSED}
    assert breaker.open_until() is None


def test_once_closed_it_has_forgotten_the_failures_from_before() -> None:
    breaker = a_half_open_breaker()
    breaker.succeed(DUE, breaker.admit(DUE, "lobby"))
    assert fail(breaker, DUE, around(10)) == [False] * 9 + [True]


def test_a_probe_that_fails_opens_it_again() -> None:
    breaker = a_half_open_breaker()
    assert breaker.fail(103.0, breaker.admit(DUE, "lobby"), 1.0)
    assert breaker.permit(103.0, "standup") is Permit.OPEN
    assert breaker.open_until() == pytest.approx(106.6)


def test_a_cancelled_probe_is_free_again() -> None:
    breaker = a_half_open_breaker()
    breaker.abandon(breaker.admit(DUE, "lobby"))
    assert breaker.permit(DUE, "lobby") is Permit.PROBE_FREE


def test_a_probe_that_vanished_frees_itself_when_it_would_have_been_slow() -> None:
    breaker = a_half_open_breaker()
    breaker.admit(103.0, "lobby")
    assert breaker.permit(104.99, "standup") is Permit.PROBE_OUT
    assert breaker.permit(105.0, "standup") is Permit.PROBE_FREE


def test_a_second_probe_is_out_although_the_first_one_is_given_up() -> None:
    breaker = a_half_open_breaker()
    vanished = breaker.admit(103.0, "lobby")
    breaker.admit(105.0, "standup")
    breaker.abandon(vanished)
    assert breaker.permit(105.0, "retro") is Permit.PROBE_OUT


def test_a_probe_that_was_given_up_may_still_bring_good_news() -> None:
    breaker = a_half_open_breaker()
    vanished = breaker.admit(103.0, "lobby")
    breaker.admit(105.0, "standup")
    assert breaker.succeed(105.5, vanished)
    assert breaker.permit(105.5, "retro") is Permit.CLOSED


def test_a_success_from_before_it_opened_does_not_close_it() -> None:
    breaker = a_breaker()
    old = breaker.admit(99.0, "lobby")
    fail(breaker, 100.0, around(10))
    assert not breaker.succeed(101.0, old)
    assert breaker.permit(101.0, "lobby") is Permit.OPEN
    assert breaker.permit(DUE, "lobby") is Permit.PROBE_FREE


def test_a_failure_from_before_it_opened_does_not_keep_it_open_longer() -> None:
    breaker = a_breaker()
    old = breaker.admit(99.0, "lobby")
    fail(breaker, 100.0, around(10))
    assert not breaker.fail(102.0, old, 1.0, retry_after=30.0)
    assert breaker.open_until() == pytest.approx(DUE)


def test_a_probe_of_an_earlier_opening_does_not_close_a_later_one() -> None:
    breaker = a_half_open_breaker()
    first = breaker.admit(DUE, "lobby")
    second = breaker.admit(105.0, "standup")
    breaker.fail(105.5, second, 0.0)
    assert not breaker.succeed(105.6, first)
    assert breaker.permit(105.6, "retro") is Permit.OPEN


def test_a_failure_from_before_it_closed_again_does_not_count_afterwards() -> None:
    breaker = a_breaker(breaker_rules(minimum_rooms=1))
    old = [breaker.admit(99.0, "lobby") for _ in range(20)]
    fail(breaker, 100.0, around(10))
    breaker.succeed(DUE, breaker.admit(DUE, "lobby"))
    assert not any(breaker.fail(DUE, ticket, 0.0) for ticket in old)
    assert breaker.permit(DUE, "lobby") is Permit.CLOSED


def test_the_room_whose_probe_failed_leaves_the_next_one_to_others_for_half_a_second() -> None:
    breaker = a_half_open_breaker()
    breaker.fail(DUE, breaker.admit(DUE, "broken"), 0.0)
    due = breaker.open_until()
    assert due is not None
    assert breaker.permit(due + HOLD_BACK - 0.01, "broken") is Permit.PROBE_OUT
    assert breaker.permit(due, "lobby") is Permit.PROBE_FREE
    assert breaker.permit(due + HOLD_BACK, "broken") is Permit.PROBE_FREE
    assert HOLD_BACK == 0.5


def test_once_closed_no_room_is_held_back_when_it_opens_again() -> None:
    breaker = a_half_open_breaker()
    breaker.fail(DUE, breaker.admit(DUE, "lobby"), 0.0)
    breaker.succeed(106.0, breaker.admit(106.0, "standup"))
    fail(breaker, 107.0, around(10))
    assert breaker.permit(109.7, "lobby") is Permit.PROBE_FREE


# ---- fixed by an operator


def test_when_an_operator_has_fixed_something_an_open_breaker_tries_at_once() -> None:
    breaker = an_open_breaker()
    breaker.try_now(100.5)
    assert breaker.permit(100.5, "lobby") is Permit.PROBE_FREE


def test_when_an_operator_has_fixed_something_no_room_is_held_back() -> None:
    breaker = a_half_open_breaker()
    breaker.fail(DUE, breaker.admit(DUE, "lobby"), 0.0)
    breaker.try_now(103.0)
    assert breaker.permit(103.0, "lobby") is Permit.PROBE_FREE


def test_when_an_operator_has_fixed_something_an_older_probe_neither_blocks_nor_opens_it() -> None:
    breaker = a_half_open_breaker()
    with_the_old_secret = breaker.admit(DUE, "lobby")
    breaker.try_now(103.0)
    assert breaker.permit(103.0, "standup") is Permit.PROBE_FREE
    assert not breaker.fail(103.1, with_the_old_secret, 0.0)
    assert breaker.permit(103.1, "standup") is Permit.PROBE_FREE


def test_when_an_operator_has_fixed_something_older_calls_do_not_open_it() -> None:
    breaker = a_breaker()
    with_the_old_secret = [breaker.admit(100.0, room) for room in around(20)]
    fail(breaker, 100.0, around(9))
    breaker.try_now(100.1)
    assert not any(breaker.fail(100.2, ticket, 0.0) for ticket in with_the_old_secret)
    assert breaker.permit(100.2, "lobby") is Permit.CLOSED


def test_when_its_time_had_come_already_mending_does_not_put_it_off() -> None:
    breaker = a_half_open_breaker()
    breaker.try_now(200.0)
    assert breaker.open_until() == pytest.approx(DUE)


def test_a_ticket_is_known_by_itself_not_by_what_is_written_on_it() -> None:
    breaker = a_breaker(breaker_rules(minimum_calls=1, minimum_rooms=1))
    twins: list[Ticket] = [breaker.admit(100.0, "lobby") for _ in range(2)]
    breaker.abandon(twins[0])
    assert breaker.fail(100.0, twins[1], 0.0)


# ---- strangers: rooms that the backend has never answered well


def fail_for(breaker: Breaker, now: float, calls: Iterable[tuple[str, Asker]]) -> list[bool]:
    """One failed call for each room and asker; whether each of them opened the breaker."""
    return [breaker.fail(now, breaker.admit(now, room, asker), 0.0) for room, asker in calls]


def made_up(count: int, *askers: Asker) -> list[tuple[str, Asker]]:
    """So many rooms that one asker, or these in turn, made up."""
    return [(f"made-up-{number}", asker) for number, asker in zip(range(count), cycle(askers or [GUEST]))]


def everybody(count: int, *, guests: bool = False) -> list[tuple[str, Asker]]:
    """So many rooms, each with a user of its own."""
    return [(f"new-{number}", Asker(f"{'guest' if guests else 'user'}-{number}", guests)) for number in range(count)]


def test_one_caller_with_made_up_rooms_does_not_open_it_however_many_there_are() -> None:
    breaker = a_breaker()
    for second in range(60):
        assert not any(fail_for(breaker, 100.0 + second, made_up(10)))


def test_nor_do_they_before_anybody_was_answered() -> None:
    breaker = Breaker(breaker_rules())
    assert not any(fail_for(breaker, 100.0, made_up(1000)))


def test_nor_one_for_one_with_rooms_that_are_answered() -> None:
    breaker = a_breaker()
    for number in range(200):
        now = 100.0 + 0.1 * number
        succeed(breaker, now, [f"real-{number}"])
        assert not any(fail_for(breaker, now, [(f"made-up-{number}", Asker(f"user-{number}"))]))


@pytest.mark.parametrize("people", [[ALICE], [GUEST, ALICE], [Asker("bob@example.com"), ALICE]])
def test_nor_does_an_account_nor_two(people: list[Asker]) -> None:
    breaker = Breaker(breaker_rules())
    assert not any(fail_for(breaker, 100.0, made_up(1000, *people)))


def test_nor_do_many_users_of_one_room_that_fails_and_one_who_makes_up_others() -> None:
    breaker = Breaker(breaker_rules())
    many = [("new", asker) for _, asker in everybody(50)]
    assert not any(fail_for(breaker, 100.0, [*many, *made_up(50)]))


def three_guests() -> list[Asker]:
    """As which one person can come, with three connections."""
    return [Asker(f"x{number}@guest.example.com", guest=True) for number in range(3)]


def test_guests_open_it_for_themselves_alone_however_many_there_are() -> None:
    breaker = Breaker(breaker_rules())
    opened = fail_for(breaker, 100.0, made_up(50, *three_guests()))
    assert opened.count(True) == 1
    for asker in three_guests():
        assert breaker.permit(100.0, "made-up-99", asker) is Permit.OPEN
    for asker in (ALICE, Asker("x9@guest.example.com", guest=True)):
        assert breaker.permit(100.0, "new", asker) is Permit.CLOSED
    assert breaker.is_open_for_some
    assert breaker.permit(100.0, "") is Permit.CLOSED  # what an operator is shown


def test_a_guest_who_is_let_through_and_fails_is_not_let_through_again() -> None:
    breaker = Breaker(breaker_rules())
    fail_for(breaker, 100.0, made_up(10, *three_guests()))
    fourth = Asker("x9@guest.example.com", guest=True)
    assert fail_for(breaker, 100.1, [("made-up-99", fourth)]) == [False]
    assert breaker.permit(100.2, "made-up-100", fourth) is Permit.OPEN


def test_one_answer_to_somebody_else_closes_it_for_these_guests_too() -> None:
    breaker = Breaker(breaker_rules())
    fail_for(breaker, 100.0, made_up(10, *three_guests()))
    assert breaker.succeed(100.1, breaker.admit(100.1, "new", ALICE))
    assert breaker.permit(100.1, "made-up-99", three_guests()[0]) is Permit.CLOSED


def test_if_the_backend_fails_for_others_too_it_opens_for_all() -> None:
    breaker = Breaker(breaker_rules())
    assert any(fail_for(breaker, 100.0, everybody(10, guests=True)))
    assert fail_for(breaker, 100.1, everybody(10)) == [False] * 9 + [True]
    assert breaker.permit(100.1, "newer", ALICE) is Permit.OPEN


def test_it_also_opens_for_all_if_rooms_that_were_answered_fail() -> None:
    breaker = a_breaker()
    assert any(fail_for(breaker, 100.0, everybody(10, guests=True)))
    assert any(fail(breaker, 100.1, around(10)))
    assert breaker.permit(100.1, "newer", ALICE) is Permit.OPEN


def in_known_rooms(count: int, *askers: Asker) -> list[tuple[str, Asker]]:
    """So many calls about rooms that exist, of one asker, or of these in turn, whose names the backend cannot read."""
    return list(zip(around(count), cycle(askers)))


@pytest.mark.parametrize("people", [[ALICE], [GUEST], three_guests(), [*three_guests(), ALICE]])
def test_too_few_who_fail_in_rooms_that_exist_open_it_for_themselves_alone(people: list[Asker]) -> None:
    breaker = a_breaker()
    assert fail_for(breaker, 100.0, in_known_rooms(10, *people)) == [False] * 9 + [True]
    assert breaker.is_open_for_some
    assert {breaker.permit(100.0, "lobby", asker) for asker in people} == {Permit.OPEN}
    assert breaker.permit(100.0, "lobby", Asker("bob@example.com")) is Permit.CLOSED


@pytest.mark.parametrize("people", [[ALICE], three_guests(), [*three_guests(), ALICE]])
def test_they_keep_nobody_else_out_with_ten_calls_for_each_of_theirs(people: list[Asker]) -> None:
    breaker = a_breaker()
    for number in range(60):
        now, user = 100.0 + number, Asker(f"user-{number}@example.com")
        for room, asker in in_known_rooms(10, *people):
            if breaker.permit(now, room, asker) in (Permit.CLOSED, Permit.PROBE_FREE):
                fail_for(breaker, now, [(room, asker)])
        assert breaker.permit(now, "lobby", user) in (Permit.CLOSED, Permit.PROBE_FREE)
        breaker.succeed(now, breaker.admit(now, "lobby", user))


def test_half_of_the_window_opens_it_for_nobody_if_one_user_and_the_guests_are_most_of_it() -> None:
    breaker = a_breaker()
    rude = [*three_guests(), ALICE]
    for number, (room, asker) in enumerate(in_known_rooms(40, *rude)):
        succeed_for(breaker, 100.0, "retro", Asker(f"user-{number}@example.com"))
        assert not any(fail_for(breaker, 100.0, [(room, asker)] * 2))
    assert not any(fail_for(breaker, 100.0, [("lobby", Asker("bob@example.com"))]))


def succeed_for(breaker: Breaker, now: float, room: str, asker: Asker) -> None:
    """One good call."""
    breaker.succeed(now, breaker.admit(now, room, asker))


def test_three_users_who_fail_in_rooms_that_exist_open_it_for_all() -> None:
    breaker = a_breaker()
    users = [Asker(f"user-{number}@example.com") for number in range(3)]
    assert fail_for(breaker, 100.0, in_known_rooms(10, *users)) == [False] * 9 + [True]
    assert breaker.permit(100.0, "lobby", Asker("bob@example.com")) is Permit.OPEN


@pytest.mark.parametrize("people", [[ALICE], three_guests()])
def test_one_who_sends_each_probe_opens_it_again_only_once(people: list[Asker]) -> None:
    breaker = a_half_open_breaker()
    assert fail_for(breaker, DUE, [("standup", people[0])]) == [True]
    later = DUE + 2.7 + HOLD_BACK
    assert fail_for(breaker, later, [("standup", people[-1])]) == [False]
    assert breaker.permit(later, "retro", people[-1]) is Permit.PROBE_OUT
    assert breaker.permit(later, "standup", Asker("bob@example.com")) is Permit.PROBE_FREE


def test_a_backend_that_hangs_opens_it_when_the_first_calls_are_slow() -> None:
    breaker = a_breaker()
    succeed(breaker, 99.9, THREE_ROOMS)
    tickets = [breaker.admit(100.0 + 0.1 * number, *call) for number, call in enumerate(everybody(20))]
    slow = [breaker.fail(ticket.sent_at + 2.0, ticket, 0.0, slow=True) for ticket in tickets[:3]]
    assert slow == [False, False, True]  # at 2.2 s nine more have taken a second


def test_it_does_not_while_others_are_answered() -> None:
    breaker = a_breaker()
    tickets = [breaker.admit(100.0 + 0.1 * number, *call) for number, call in enumerate(everybody(20))]
    succeed(breaker, 101.0, ["lobby"])
    assert not any(breaker.fail(ticket.sent_at + 2.0, ticket, 0.0, slow=True) for ticket in tickets[:3])


def test_a_new_backend_that_fails_for_everybody_opens_it_at_the_tenth_call() -> None:
    assert fail_for(Breaker(breaker_rules()), 100.0, everybody(10)) == [False] * 9 + [True]


def test_one_that_answered_others_a_moment_ago_opens_it_after_two_seconds() -> None:
    breaker = a_breaker()
    succeed(breaker, 100.0, THREE_ROOMS)
    assert not any(fail_for(breaker, 101.9, everybody(20)))
    assert fail_for(breaker, 102.0, everybody(1)) == [True]


def test_refused_connections_count_for_each_room_as_no_name_can_cause_them() -> None:
    breaker = Breaker(breaker_rules())
    tickets = [breaker.admit(100.0, room, asker) for room, asker in made_up(10)]
    assert [breaker.fail(100.0, ticket, 0.0, whole=True) for ticket in tickets] == [False] * 9 + [True]


def test_an_answer_that_decides_nothing_ends_a_run_and_makes_no_room_known() -> None:
    breaker = Breaker(breaker_rules())
    fail_for(breaker, 100.0, everybody(9))
    breaker.succeed(100.0, breaker.admit(100.0, "made-up", GUEST), well=False)
    assert not any(fail_for(breaker, 101.0, [("made-up", GUEST)] * 50))


def test_the_failed_probe_of_a_stranger_leaves_it_half_open_for_others() -> None:
    breaker = a_half_open_breaker()
    assert not breaker.fail(DUE, breaker.admit(DUE, "made-up", GUEST), 0.0)
    assert breaker.permit(DUE, "made-up-2", GUEST) is Permit.PROBE_OUT
    assert breaker.permit(DUE, "new", ALICE) is Permit.PROBE_FREE
    assert breaker.succeed(DUE, breaker.admit(DUE, "new", ALICE))


def test_the_stranger_may_probe_again_after_a_pause() -> None:
    breaker = a_half_open_breaker()
    breaker.fail(DUE, breaker.admit(DUE, "made-up", GUEST), 0.0)
    assert breaker.permit(DUE + 2.69, "made-up", GUEST) is Permit.PROBE_OUT
    assert breaker.permit(DUE + 2.7, "made-up", GUEST) is Permit.PROBE_FREE


def test_the_failed_probes_of_three_strangers_open_it_again() -> None:
    breaker = a_half_open_breaker()
    assert fail_for(breaker, DUE, everybody(3)) == [False, False, True]
    assert breaker.permit(DUE, "lobby") is Permit.OPEN


def test_rooms_answered_well_are_remembered_up_to_a_bound() -> None:
    breaker = Breaker(breaker_rules(minimum_rooms=1))
    succeed(breaker, 100.0, [f"room-{number}" for number in range(REMEMBERED_ROOMS + 1)])
    assert len(breaker._answered_well) == REMEMBERED_ROOMS
    assert "room-0" not in breaker._answered_well
