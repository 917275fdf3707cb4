"""What an idle process wakes up for."""

from __future__ import annotations

import pytest

from sidecar.clock import until_next


@pytest.mark.parametrize(("now", "seconds"), [(12.25, 0.75), (12.0, 1.0), (12.875, 0.125)])
def test_all_that_is_done_each_second_is_due_at_the_same_instant(now: float, seconds: float) -> None:
    assert until_next(1.0, now) == seconds
