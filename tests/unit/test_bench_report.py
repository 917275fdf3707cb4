"""What the benchmark makes of its samples."""

import xml.etree.ElementTree as ET

import pytest

from bench.plot import svg
from bench.report import BEGIN, END, Cell, Heading, markdown, number, placed, rows_of, shown
from bench.sample import Sample

HEADING = Heading("answering", "Decisions <& more>", baseline="bare", drawn=("a second",))


def samples(who: str, *values: float, case: str = "kept", figure: str = "a second") -> list[Sample]:
    """One for each round."""
    return [Sample("answering", case, who, figure, value, number) for number, value in enumerate(values)]


def cell(measured: list[Sample], who: str, case: str = "kept") -> Cell:
    """The only cell of a row."""
    (found,) = (row for row in rows_of(HEADING, measured) if (row.case, row.who) == (case, who))
    (only,) = found.cells.values()
    return only


def test_a_value_is_the_median_of_its_rounds() -> None:
    assert cell(samples("sidecar", 1, 100, 3), "sidecar").value == 3


def test_a_ratio_is_the_median_of_those_within_each_round() -> None:
    measured = samples("bare", 10, 100, 1000) + samples("sidecar", 5, 20, 900)
    assert cell(measured, "sidecar").ratio == pytest.approx(0.5)  # of 0.5, 0.2 and 0.9; 0.2 of the medians


def test_nothing_is_compared_with_itself_or_across_cases() -> None:
    measured = samples("bare", 10) + samples("sidecar", 5, case="closed")
    assert cell(measured, "bare").ratio is None
    assert cell(measured, "sidecar", "closed").ratio is None


def test_whom_others_are_compared_with_goes_first() -> None:
    rows = rows_of(HEADING, samples("sidecar", 5) + samples("bare", 10))
    assert [row.who for row in rows] == ["bare", "sidecar"]


def test_a_round_in_which_the_baseline_was_zero_gives_no_ratio() -> None:
    assert cell(samples("bare", 0, 10) + samples("sidecar", 7, 20), "sidecar").ratio == 2


def test_a_table_has_all_figures_of_a_part_and_a_case_named_once() -> None:
    measured = samples("bare", 10) + samples("sidecar", 5) + samples("sidecar", 0.25, figure="p99 ms")
    text = markdown([HEADING, Heading("other", "Not measured")], measured, {"kernel": "6"}, 1)
    assert "- kernel: 6" in text
    assert "|  |  | a second | p99 ms |" in text
    assert "| kept | bare | 10 |  |" in text
    assert "|  | sidecar | 5 (0.50×) | 0.25 |" in text
    assert "Not measured" not in text


def test_numbers_have_as_many_digits_as_mean_something() -> None:
    assert [number(each) for each in (0, 3, 0.001, 0.1234, 12.345, 123.45, 12345.6)] == [
        "0", "3", "<0.01", "0.12", "12.3", "123", "12,346",
    ]  # fmt: skip
    assert shown(Cell(12.345, 0.5)) == "12.3 (0.50×)"


def test_what_people_wrote_around_the_marks_stays() -> None:
    text = f"# Title\n\nby hand\n\n{BEGIN}\nold\n{END}\n\nmore by hand\n"
    once = placed(text, "new\n")
    assert once == f"# Title\n\nby hand\n\n{BEGIN}\n\nnew\n\n{END}\n\nmore by hand\n"
    assert placed(once, "new") == once


def test_a_file_without_marks_gets_them_at_its_end() -> None:
    assert placed("by hand\n", "new") == f"by hand\n\n{BEGIN}\n\nnew\n\n{END}\n"
    assert placed("", "new") == f"{BEGIN}\n\nnew\n\n{END}\n"


def test_the_drawing_is_xml_with_a_bar_for_each_row_as_long_as_its_value() -> None:
    root = ET.fromstring(
        svg([HEADING], samples("bare", 10) + samples("sidecar", 5) + samples("<x>", 10, case="closed"))
    )
    bars = [float(each.get("width", "0")) for each in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert bars == [pytest.approx(bars[0]), pytest.approx(bars[0] / 2, abs=0.1), pytest.approx(bars[0])]
    assert "Decisions <& more>: a second (less is better)" in {
        each.text for each in root.iter("{http://www.w3.org/2000/svg}text")
    }
    assert float(root.get("viewBox", "").split()[3]) > 0


def test_only_figures_that_are_to_be_drawn_are() -> None:
    assert "<rect" not in svg([HEADING], samples("bare", 10, figure="p99 ms"))
