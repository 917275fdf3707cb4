"""Each failure of docs/failures.md is produced, said and cured; and the page is about these."""

from __future__ import annotations

import re

import pytest

from tests.system.failures import FAILURES, PAGE, TABLE, Failure, Result, row, run


@pytest.mark.parametrize("it", FAILURES, ids=lambda it: it.name)
async def test_a_failure_is_said_and_the_cure_works(it: Failure) -> None:
    await run(it)


def test_the_page_has_these_failures() -> None:
    def without_figures(line: str) -> str:
        return re.sub(r"\d+\.\d s", "", line)

    expected = [without_figures(row(it, Result(0.0, 0.0))) for it in FAILURES]
    table = TABLE.search(PAGE.read_text())
    assert table is not None
    assert [without_figures(line) for line in table[0].splitlines()] == expected
    assert len(FAILURES) >= 30
