"""The table of `make faults`, with few questions: in no fault does anybody get a wrong answer, or none."""

import pytest

from tests.faults import FAULTS, measure


@pytest.mark.parametrize("fault", FAULTS)
async def test_known_users_are_answered_rightly_and_strangers_definitely_while_the_backend_fails(
    fault: str,
) -> None:
    row = await measure(fault, rounds=1)
    assert row.held, row
