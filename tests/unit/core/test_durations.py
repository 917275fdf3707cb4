"""Durations as people read them."""

from __future__ import annotations

import pytest

from sidecar.core.durations import span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "60 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (90_000, "25.0 h"), (2e5, "2.3 d")],
)
def test_a_duration_is_in_the_largest_unit_that_fits_twice(seconds: float, text: str) -> None:
    assert span(seconds) == text


def test_seconds_have_as_many_decimals_as_are_wanted() -> None:
    assert span(0.25, 1) == "0.2 s"
