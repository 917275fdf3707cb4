"""Which pattern fits a room name, and how long it takes to find out."""

from __future__ import annotations

import sys
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.room_patterns import RoomPatterns

LONGEST_NAME = 1023
"""Bytes of a room name."""


def fits(pattern: str, name: str) -> bool:
    """What the documentation says about patterns, as directly as possible."""

    @cache
    def rest_fits(p: int, n: int) -> bool:
        if p == len(pattern):
            return n == len(name)
        if pattern[p] == "*":
            return rest_fits(p + 1, n) or (n < len(name) and rest_fits(p, n + 1))
        return n < len(name) and pattern[p] in ("?", name[n]) and rest_fits(p + 1, n + 1)

    return rest_fits(0, 0)


few_characters = st.text(alphabet="ab-*?", max_size=12)


@given(st.lists(few_characters, max_size=6), st.text(alphabet="ab-[]", max_size=16))
def test_the_first_pattern_that_fits_is_found(patterns: list[str], name: str) -> None:
    expected = next((index for index, pattern in enumerate(patterns) if fits(pattern, name)), None)
    assert RoomPatterns(patterns).first_fit(name) == expected


@given(st.text(max_size=20), st.text(max_size=20))
def test_all_other_characters_are_literal(pattern: str, name: str) -> None:
    assert (RoomPatterns([pattern]).first_fit(name) == 0) is fits(pattern, name)


@given(st.text(alphabet=st.characters(exclude_characters="*?"), max_size=20))
def test_a_name_without_wildcards_fits_itself(name: str) -> None:
    assert RoomPatterns([name]).first_fit(name) == 0


def steps(patterns: RoomPatterns, name: str) -> int:
    """How many lines of Python it takes."""
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        patterns.first_fit(name)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("pattern", ["*-*-*-vip", "*-" * 127, "*" * 255, "?*" * 127, "*" + "-" * 253 + "x"])
def test_twice_the_name_takes_twice_the_steps_whatever_the_pattern(pattern: str) -> None:
    patterns = RoomPatterns([pattern])
    half, whole = (steps(patterns, "-" * length) for length in (LONGEST_NAME // 2, LONGEST_NAME - 1))
    assert whole <= 2 * half
    assert whole < 5 * LONGEST_NAME


def test_the_steps_do_not_grow_with_the_number_of_patterns() -> None:
    one, many = (steps(RoomPatterns(["*-x"] * number), "-" * LONGEST_NAME) for number in (1, 1000))
    assert many == one
