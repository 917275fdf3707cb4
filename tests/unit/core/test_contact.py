"""When a sidecar knows what the others have said."""

from __future__ import annotations

import pytest

from sidecar.core.contact import UNHEARD, Batch, Contact, Trust
from sidecar.core.policy import NEVER

NOW_MS = 1_000_000


def a_contact(at: float = 100.0, tail: int = 5) -> Contact:
    """One that has just come into touch."""
    contact = Contact()
    contact.take(Batch("e1", NOW_MS, tail), at, at)
    contact.joined()
    contact.take(Batch("e1", NOW_MS, tail), at, at)
    return contact


def message(number: int) -> tuple[int, int, bytes]:
    return number, NOW_MS, b"%d" % number


def test_the_first_contact_brings_no_touch_before_all_is_said_again() -> None:
    contact = Contact()
    taken = contact.take(Batch("e1", NOW_MS, 5), 100.0, 100.0)
    assert taken.lost
    assert taken.to_be_said_again
    contact.take(Batch("e1", NOW_MS, 5), 101.0, 101.0)
    assert not contact.in_touch(101.0)
    contact.joined()
    contact.take(Batch("e1", NOW_MS, 5), 102.0, 102.0)
    assert contact.in_touch(102.0)


def test_messages_are_taken_once_and_in_order() -> None:
    contact = a_contact()
    taken = contact.take(Batch("e1", NOW_MS, 7, (message(6), message(7))), 101.0, 101.0)
    assert [content for _, content in taken.messages] == [b"6", b"7"]
    assert contact.position == 7


def test_nothing_is_suspect_while_it_is_in_touch() -> None:
    contact = a_contact(at=100.0)
    contact.take(Batch("e1", NOW_MS + 60_000, 5), 160.0, 160.0)
    assert contact.suspect_before(160.0 + UNHEARD) == contact.lost_before == 100.0


def test_unheard_for_five_seconds_what_is_older_than_that_is_suspect() -> None:
    contact = a_contact(at=100.0)
    assert not contact.in_touch(106.0)
    assert contact.suspect_before(110.0) == 110.0 - UNHEARD


def test_while_messages_wait_to_be_read_the_time_of_the_last_complete_read_counts() -> None:
    contact = a_contact(at=100.0)
    contact.take(Batch("e1", NOW_MS + 4_000, 9, (message(6), message(7))), 104.0, 104.0)
    assert contact.lag == 2
    assert not contact.in_touch(106.0)


def test_after_a_gap_all_that_is_older_is_suspect_and_nothing_is_said_again() -> None:
    for gap in (Batch("e1", NOW_MS, 8, (message(7), message(8))), Batch("e1", NOW_MS, 8), Batch("e1", NOW_MS, 3)):
        contact = a_contact(at=100.0)
        taken = contact.take(gap, 101.0, 101.5)
        assert taken.lost == "messages are missing in the stream"
        assert not taken.to_be_said_again
        assert not taken.messages
        assert contact.suspect_before(101.5) == 101.5


def test_in_another_epoch_all_that_is_older_is_suspect() -> None:
    contact = a_contact(at=100.0)
    taken = contact.take(Batch("e2", NOW_MS, 6, (message(6),)), 101.0, 101.5)
    assert taken.lost
    assert taken.to_be_said_again
    assert not taken.messages
    assert contact.suspect_before(101.5) == 101.5
    assert not contact.in_touch(101.5)


@pytest.mark.parametrize("ahead_ms", [-1_500, 1_500, 3_600_000])
def test_a_clock_that_was_set_begins_a_new_epoch(ahead_ms: int) -> None:
    contact = a_contact(at=100.0)
    assert contact.take(Batch("e1", NOW_MS + 10_000 + ahead_ms, 5), 110.0, 110.0).renewal


def test_a_clock_that_was_set_during_a_restart_begins_a_new_epoch_too() -> None:
    contact = Contact()
    contact.take(Batch("run1-g1", NOW_MS, 5), 100.0, 100.0)
    contact.joined()
    assert contact.take(Batch("run2-g1", NOW_MS - 20_000, 5), 110.0, 110.0).renewal == ("run2-g1", 30_000)
    assert contact.take(Batch("run2-g1+30000", NOW_MS - 19_000, 6), 111.0, 111.0).to_be_said_again


def test_another_sidecar_has_renewed_the_epoch_already() -> None:
    contact = Contact()
    contact.take(Batch("run1-g1", NOW_MS, 5), 100.0, 100.0)
    assert not contact.take(Batch("run2-g1+30000", NOW_MS - 20_000, 5), 110.0, 110.0).renewal


def test_an_engine_that_has_forgotten_that_its_clock_was_set_back_is_reminded() -> None:
    contact = Contact()
    contact.take(Batch("run1-g1+30000", NOW_MS, 5), 100.0, 100.0)
    assert contact.take(Batch("run2-g1", NOW_MS + 10_000, 3), 110.0, 110.0).renewal == ("run2-g1", 30_000)


@pytest.mark.parametrize("ahead_ms", [-500, 500])
def test_a_clock_that_is_a_little_slower_or_faster_does_not(ahead_ms: int) -> None:
    contact = a_contact(at=100.0)
    taken = contact.take(Batch("e1", NOW_MS + 10_000 + ahead_ms, 5), 110.0, 110.0)
    assert not taken.renewal
    assert not taken.lost


def test_a_clock_was_not_set_where_the_read_itself_took_long() -> None:
    contact = a_contact(at=100.0)
    assert not contact.take(Batch("e1", NOW_MS + 18_000, 5), 110.0, 119.0).lost


def test_nobody_who_was_never_in_touch_has_heard_anything() -> None:
    assert Contact().suspect_before(50.0) == 50.0 - UNHEARD
    assert Contact().lost_before == NEVER


def test_after_three_failures_the_engine_is_left_alone_for_a_second_and_tried_by_one_question() -> None:
    trust = Trust()
    for _ in range(Trust.MOST):
        assert trust.allows(10.0)
        trust.bad(10.0)
    assert not trust.allows(10.9)
    assert trust.allows(11.0)
    assert not trust.allows(11.0)
    trust.good()
    assert trust.allows(11.0)


def test_a_wrong_signature_is_enough() -> None:
    trust = Trust()
    trust.bad(10.0, forged=True)
    assert not trust.allows(10.5)


def test_the_clock_of_the_engine_is_unknown_until_this_process_has_read_it() -> None:
    contact = Contact()
    contact.resume("e", 7, 50.0)
    assert contact.engine_ms(51.0) is None
    contact.take(Batch("e", 1_000, 7), 51.0, 51.0)
    assert contact.engine_ms(52.0) == 2_000


def test_a_sidecar_that_goes_on_is_not_in_touch_before_it_has_said_again_what_the_first_read_asks_for() -> None:
    contact = Contact()
    contact.resume("e", 7, 50.0)
    contact.joined()  # a round of writing, before anything was read
    contact.take(Batch("e", NOW_MS, 7), 51.0, 51.0)
    assert not contact.in_touch(51.0)
    contact.joined()
    contact.take(Batch("e", NOW_MS, 7), 52.0, 52.0)
    assert contact.in_touch(52.0)
