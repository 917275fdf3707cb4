"""While the engine fails, nobody gets in who must not, and nobody is kept out of whom a shard knows. Two of all faults,
since each takes a while (`SHARDS_FAULTS=all` for all); the page has them all."""

from __future__ import annotations

import os
import re

import pytest

from tests.shards.engine_faults import FAULTS, EngineFault
from tests.shards.faults import PAGE, SUMMARY, run

CHOSEN = ("connections are cut and refused", "a replica that had fallen behind is promoted")
ALL = os.environ.get("SHARDS_FAULTS") == "all"


@pytest.mark.parametrize("fault", [each for each in FAULTS if ALL or each.name in CHOSEN], ids=lambda fault: fault.name)
async def test_each_answer_is_one_that_may_be(fault: EngineFault) -> None:
    assert (await run(fault)).problems == []


def test_the_page_has_these_faults() -> None:
    found = SUMMARY.search(PAGE.read_text())
    assert found is not None
    assert re.findall(r"^\| \d+ \| (.*?) \|", found[3], re.M) == [fault.name for fault in FAULTS]
