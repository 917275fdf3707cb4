"""docs/answers.md says what the code does: its tables are the code's."""

from __future__ import annotations

import pytest

from sidecar.core.breaker import Permit
from sidecar.core.classify import CLASSES
from sidecar.core.policy import Freshness
from tools.answers import PAGE, classes, plans, render


def test_the_published_tables_are_the_ones_of_the_code() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render(page), "docs/answers.md is out of date: python -m tools.answers"


def test_every_row_and_every_cell_is_published() -> None:
    assert len(classes().splitlines()) == 2 + len(CLASSES)
    assert [line.count(" | ") for line in plans().splitlines()] == [len(Permit)] * (2 + len(Freshness))


def test_the_classes_read_as_the_contract_does() -> None:
    lines = classes().splitlines()
    assert "| `validate-access` | 4xx | a JSON object with `allowed`: `false` | **Rejected** |" in lines
    assert "| `room-created` | 400, 404, 409, 410, 422 | a JSON object | **Rejected** |" in lines
    assert lines[-1].endswith("| any other | anything, or nothing | **Unavailable** |")


@pytest.mark.parametrize("page", ["", "<!-- classes -->\n<!-- /classes -->\n"])
def test_a_page_without_a_place_for_each_table_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="must have one place"):
        render(page)
