"""While the engine fails, nobody gets in who must not, and nobody is kept out of whom a shard knows; a part of all
faults, since each takes a while (`SHARDS_FAULTS=all` for all). The page has them all."""

from __future__ import annotations

import os
import re

import pytest

from tests.shards.engine_faults import FAULTS, EngineFault
from tests.shards.faults import PAGE, SUMMARY, run

EVERY = 1 if os.environ.get("SHARDS_FAULTS") == "all" else 6


@pytest.mark.parametrize("fault", FAULTS[::EVERY], ids=lambda fault: fault.name)
async def test_each_answer_is_one_that_may_be(fault: EngineFault) -> None:
    assert (await run(fault)).problems == []


def test_the_page_has_these_faults() -> None:
    found = SUMMARY.search(PAGE.read_text())
    assert found is not None
    assert re.findall(r"^\| \d+ \| (.*?) \|", found[3], re.M) == [fault.name for fault in FAULTS]
