"""The disk's own clock never runs backwards, and never lets an entry grow younger."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.store.ages import Stamp, advance, is_off_unknown, missed, resume

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["run", "restart", "reboot"]),
        st.floats(0, 1e6),  # seconds that really pass
        st.floats(-1e8, 1e8),  # seconds by which the wall clock is set
    ),
    max_size=12,
)


def test_without_a_jump_it_is_the_wall_clock() -> None:
    stamp = resume(None, "a", 10.0, 1_000.0)
    assert advance(stamp, 15.0, 1_005.0).time == 1_005.0


def test_a_wall_clock_that_is_set_back_does_not_set_it_back() -> None:
    stamp = advance(resume(None, "a", 10.0, 1_000.0), 11.0, 500.0)
    assert stamp.time == 1_001.0
    assert resume(stamp, "a", 12.0, 501.0).time == 1_002.0


def test_across_a_reboot_it_goes_on_from_the_highest_wall_time_ever_seen() -> None:
    stamp = advance(resume(None, "a", 10.0, 1_000.0), 11.0, 9_000.0)
    assert resume(stamp, "b", 1.0, 1_010.0).time == 9_001.0


def test_across_a_reboot_at_least_the_time_since_the_boot_has_passed() -> None:
    stamp = resume(None, "a", 10.0, 1_000.0)
    assert resume(stamp, "b", 70.0, 0.0).time == 1_070.0


@pytest.mark.parametrize(
    ("boot", "boottime", "wall", "unknown"),
    [
        ("b", 20.0, 0.0, True),  # no clock that runs while the machine is off: 1970
        ("b", 20.0, 9_999.0, True),  # set back
        ("b", 20.0, 10_014.9, True),  # a boot of 20 s cannot fit into 14.9
        ("b", 20.0, 10_015.0, False),
        ("b", 20.0, 10_020.0, False),
        ("b", 20.0, 99_999.0, False),
        ("a", 120.0, 0.0, False),  # the same boot: CLOCK_BOOTTIME says how long
        ("a", 20.0, 0.0, True),  # of the same name, but it has started again
    ],
)
def test_for_how_long_a_machine_was_off_is_unknown_where_the_wall_clock_is_behind(
    boot: str, boottime: float, wall: float, unknown: bool
) -> None:
    assert is_off_unknown(Stamp("a", 100.0, 10_000.0, 10_000.0), boot, boottime, wall) is unknown


def test_without_an_earlier_stamp_nothing_is_unknown() -> None:
    assert not is_off_unknown(None, "a", 20.0, 0.0)


@pytest.mark.parametrize(
    ("boottime", "wall", "seconds"),
    [(150.0, 1_050.0, 0.0), (150.0, 4_650.0, 3_600.0), (150.0, 0.0, 0.0), (100.0, 1_001.0, 1.0)],
)
def test_a_wall_clock_set_forward_after_the_start_says_what_was_missed(
    boottime: float, wall: float, seconds: float
) -> None:
    assert missed(Stamp("a", 100.0, 1_000.0, 1_000.0), boottime, wall) == seconds


def test_across_a_reboot_it_counts_what_the_wall_clock_says_has_passed_though_it_is_behind() -> None:
    ahead = advance(resume(None, "a", 10.0, 9_000.0), 20.0, 1_000.0)
    assert resume(ahead, "b", 1.0, 1_300.0).time == 9_010.0 + 300.0


def test_a_machine_whose_wall_clock_starts_over_at_every_boot_does_not_forget_the_boots_between() -> None:
    stamp = resume(None, "a", 0.0, 0.0)
    stamp = advance(stamp, 100.0, 100.0)
    for boot in "bcd":
        stamp = resume(stamp, boot, 0.0, 0.0)
        stamp = advance(stamp, 60.0, 60.0)
    assert stamp.time == 100.0 + 3 * 60.0


@given(STEPS)
def test_an_age_is_never_less_than_the_time_the_machine_was_seen_running(steps: list[tuple[str, float, float]]) -> None:
    boot, boottime, wall, seen = 0, 50.0, 1e9, 0.0
    stamp = resume(None, "0", boottime, wall)
    start = stamp
    for what, seconds, jump in steps:
        wall += seconds + jump
        if what == "reboot":
            boot, boottime = boot + 1, seconds / 2
            later = resume(stamp, str(boot), boottime, wall)
        else:
            boottime += seconds
            seen += seconds
            later = resume(stamp, str(boot), boottime, wall) if what == "restart" else advance(stamp, boottime, wall)
        assert later.time >= stamp.time
        stamp = later
    assert stamp.time - start.time >= seen * (1 - 1e-9) - 1e-3
    assert stamp.time >= wall


def test_instants_are_turned_there_and_back() -> None:
    stamp = Stamp("a", 100.0, 1_000.0, 1_200.0)
    assert stamp.at(90.0) == 1_190.0
    assert stamp.boottime_of(1_190.0) == 90.0
