"""The failures of docs/failures.md that need no systemd are produced, said and cured; and the page is about all."""

from __future__ import annotations

import re

import pytest

from tests.failures.booted_rows import ON_THE_PAGE
from tests.failures.common import COMMON
from tests.failures.here import HERE, run
from tests.failures.table import Failure, Result, on_the_page, row


@pytest.mark.parametrize("it", [*COMMON, *HERE], ids=lambda it: it.name)
async def test_a_failure_is_said_and_the_cure_works(it: Failure) -> None:
    await run(it)


def test_the_page_has_the_failures_of_the_booted_debians() -> None:
    def without_figures(line: str) -> str:
        return re.sub(r"\d+\.\d s", "", line)

    expected = [row(it, [Result(0.0, 0.0)] * 2) for it in ON_THE_PAGE]
    assert [without_figures(line) for line in on_the_page()] == [without_figures(line) for line in expected]
    assert len(ON_THE_PAGE) >= 40
