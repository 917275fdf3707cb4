"""What the benchmark makes of its samples."""

import math
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import results
from bench.curves import Chart, apart, svg, ticks
from bench.goals import GOALS
from bench.judging import Goal, judged
from bench.parts import PARTS
from bench.report import (
    BEGIN,
    END,
    Cell,
    Heading,
    drawings,
    lines_of,
    markdown,
    number,
    placed,
    rows_of,
    shown,
    spread_of,
)
from bench.results import Run
from bench.sample import Failure, Measured, Sample, WentWrong, tried

CHART = Chart("load.svg", "Load <& more>", "users", "a second", logarithmic=True)
HEADING = Heading("answering", "Decisions", ("bare", "sidecar", "<x>"), baseline="bare")
CHARTED = replace(HEADING, charts=[CHART])


def samples(who: str, *values: float, case: str = "kept", figure: str = "a second") -> list[Sample]:
    """One for each round."""
    return [Sample("answering", case, who, figure, value, number) for number, value in enumerate(values)]


def run(*measured: Measured, machine: str = "6", when: str = "2026-01-01 00:00", rounds: int = 1) -> Run:
    return Run(when, {"kernel": machine}, rounds, 0.5, 1.5, measured)


def page(*measured: Measured, heading: Heading = HEADING) -> str:
    return markdown({"part": [heading]}, {"part": run(*measured)})


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


def test_rows_are_in_the_order_of_the_heading() -> None:
    rows = rows_of(HEADING, samples("sidecar", 5) + samples("bare", 10))
    assert [row.who for row in rows] == ["bare", "sidecar"]


def test_a_program_that_is_no_longer_measured_has_no_row() -> None:
    assert rows_of(HEADING, samples("both at once", 5)) == []


def test_a_round_in_which_the_baseline_was_zero_gives_no_ratio() -> None:
    assert cell(samples("bare", 0, 10) + samples("sidecar", 7, 20), "sidecar").ratio == 2


def test_the_spread_is_that_of_the_ratios_where_there_are_ratios() -> None:
    measured = samples("bare", 10, 100) + samples("sidecar", 5, 50)  # the machine was slower in the first round
    assert cell(measured, "sidecar").spread == 0
    assert cell(measured, "bare").spread == pytest.approx(90 / 55)


def test_the_spread_of_one_round_is_not_known_and_that_of_zeros_is_zero() -> None:
    assert [spread_of([3]), spread_of([0, 0]), spread_of([0, 0, 1])] == [None, 0, math.inf]


def test_a_figure_whose_rounds_disagree_is_marked() -> None:
    assert [shown(Cell(12.345, 0.5, spread)) for spread in (None, 0.25, 0.26)] == [
        "12.3 (0.50×)", "12.3 (0.50×)", "12.3 (0.50×) ~",
    ]  # fmt: skip


def test_a_table_has_all_figures_of_a_part_and_a_case_named_once() -> None:
    text = page(*samples("bare", 10), *samples("sidecar", 5), *samples("sidecar", 0.25, figure="p99 ms"))
    assert "- kernel: 6" in text
    assert "|  |  | a second | p99 ms |" in text
    assert "| kept | bare | 10 |  |" in text
    assert "|  | sidecar | 5 (0.50×) | 0.25 |" in text


def test_a_row_says_how_much_its_rounds_differ() -> None:
    text = page(*samples("bare", 10, 30), *samples("sidecar", 5, 15))
    assert "| kept | bare | 20 ~ | 100% |" in text
    assert "|  | sidecar | 10 (0.50×) | 0% |" in text


def test_a_table_says_when_it_was_measured_and_how_busy_the_machine_was() -> None:
    assert "Compared with: bare. 2026-01-01 00:00, 1 round, load 0.50 before and 1.50 after." in page(
        *samples("bare", 1)
    )


def test_a_part_measured_on_another_machine_says_so() -> None:
    older = Heading("answering", "Older", ("bare",))
    newer = run(*samples("bare", 1), when="2026-02-02 00:00", machine="7")
    text = markdown({"old": [older], "new": [HEADING]}, {"old": run(*samples("bare", 1)), "new": newer})
    assert "- kernel: 7" in text
    assert text.count("Other than above: kernel: 6.") == 1


def test_a_program_that_fails_is_named_once_with_the_reason() -> None:
    failure = Failure("answering", "sidecar", "it ended:\nno port")
    text = page(*samples("bare", 10), failure, failure)
    assert "| kept | bare | 10 |" in text
    assert text.count("**sidecar is not in this table or not in all of its rounds**: it ended: no port") == 1


def test_a_table_of_which_nothing_is_known_is_left_out() -> None:
    assert "Decisions" not in page(heading=HEADING)
    assert "Decisions" not in markdown({"part": [HEADING]}, {})


async def test_of_a_program_that_fails_only_the_reason_is_kept() -> None:
    async def measuring() -> AsyncIterator[Sample]:
        yield samples("sidecar", 1)[0]
        raise WentWrong("a wrong answer")

    assert [each async for each in tried("answering", "sidecar", measuring())] == [
        Failure("answering", "sidecar", "a wrong answer")
    ]


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    runs = {"part": run(*samples("bare", 1.5, 2), Failure("answering", "sidecar", "no")), "other": run(rounds=3)}
    results.write(tmp_path / "results.json", runs)
    assert results.read(tmp_path / "results.json", ["part", "other"]) == runs


def test_what_was_measured_of_a_part_that_no_longer_exists_is_forgotten(tmp_path: Path) -> None:
    results.write(tmp_path / "results.json", {"old": run(*samples("bare", 1))})
    assert results.read(tmp_path / "results.json", ["part"]) == {}
    assert results.read(tmp_path / "nothing.json", ["part"]) == {}


def test_numbers_have_as_many_digits_as_mean_something() -> None:
    assert [number(each) for each in (0, 3, 0.001, 0.1234, 12.345, 123.45, 12345.6)] == [
        "0", "3", "<0.01", "0.12", "12.3", "123", "12,346",
    ]  # fmt: skip


def test_what_people_wrote_around_the_marks_stays() -> None:
    text = f"# Title\n\nby hand\n\n{BEGIN}\nold\n{END}\n\nmore by hand\n"
    once = placed(text, "new\n")
    assert once == f"# Title\n\nby hand\n\n{BEGIN}\n\nnew\n\n{END}\n\nmore by hand\n"
    assert placed(once, "new") == once


def test_a_file_without_marks_gets_them_at_its_end() -> None:
    assert placed("by hand\n", "new") == f"by hand\n\n{BEGIN}\n\nnew\n\n{END}\n"
    assert placed("", "new") == f"{BEGIN}\n\nnew\n\n{END}\n"


def test_a_line_has_the_median_of_each_case_at_the_number_of_the_case() -> None:
    measured = samples("bare", 3, case="10,000 users") + samples("bare", 1, 2, 9, case="100 users")
    assert lines_of(CHART, rows_of(HEADING, measured)) == {"bare": [(100, 2), (10_000, 3)]}


def test_a_chart_is_shown_below_its_table() -> None:
    measured = samples("bare", 3, case="100 users")
    assert page(*measured, heading=CHARTED).endswith("|\n\n![Load <& more>](load.svg)\n")
    assert list(drawings({"part": [CHARTED]}, {"part": run(*measured)})) == ["load.svg"]
    assert drawings({"part": [CHARTED]}, {"part": run(), "other": run()}) == {}


def drawn(lines: dict[str, list[tuple[float, float]]], kind: str) -> list[ET.Element]:
    return list(ET.fromstring(svg(CHART, lines)).iter(f"{{http://www.w3.org/2000/svg}}{kind}"))


def test_the_drawing_is_xml_with_a_point_for_each_value_in_its_place() -> None:
    lines = {"bare": [(10.0, 1.0), (100.0, 10.0), (1000.0, 100.0)], "<x>": [(100.0, 10.0)]}
    points = [(float(each.get("cx", 0)), float(each.get("cy", 0))) for each in drawn(lines, "circle")]
    (left, low), (middle, between), (right, high), alone = points
    assert left < middle < right
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert low > between > high
    assert between == pytest.approx((low + high) / 2, abs=0.1)
    assert alone == (middle, between)
    words = {each.text for each in drawn(lines, "text")}
    assert {"Load <& more>", "users", "bare", "<x>", "10", "100", "1,000"} <= words


def test_one_point_is_a_chart_too() -> None:
    assert len(drawn({"bare": [(10.0, 5.0)]}, "circle")) == 1


@pytest.mark.parametrize(
    ("smallest", "largest", "logarithmic", "expected"),
    [
        (3, 90, True, [2, 5, 10, 20, 50, 100]),
        (1, 10, True, [1, 2, 5, 10]),
        (3, 90, False, [0, 20, 40, 60, 80, 100]),
        (0.1, 0.25, False, [0, 0.05, 0.1, 0.15, 0.2, 0.25]),
        (0, 0, False, [0, 1]),
    ],
)
def test_the_marks_of_an_axis_are_round_and_enclose_all_values(
    smallest: float, largest: float, logarithmic: bool, expected: list[float]
) -> None:
    assert ticks(smallest, largest, logarithmic=logarithmic) == pytest.approx(expected)


def test_names_at_the_end_of_lines_do_not_cover_each_other() -> None:
    assert apart({"b": 10.0, "a": 12.0, "c": 100.0}, 16) == {"b": 10, "a": 26, "c": 100}


def verdict(goal: Goal, *measured: Sample) -> tuple[str, str]:
    """The worst case, and whether the goal is reached."""
    ((_, shown, reached),) = judged([goal], measured)
    return shown, reached


FASTER = Goal("answering", "sidecar", "a second", to="bare", at_least=0.5)


def test_a_goal_is_judged_by_the_worst_case_in_which_it_counts() -> None:
    kept = samples("bare", 10) + samples("sidecar", 6)
    closed = samples("bare", 10, case="closed") + samples("sidecar", 4, case="closed")
    assert verdict(FASTER, *kept, *closed) == ("0.4× (closed)", "no")
    assert verdict(replace(FASTER, case="kept"), *kept, *closed) == ("0.6×", "yes")


def test_a_goal_for_a_ratio_counts_the_rounds_one_by_one() -> None:
    assert verdict(FASTER, *samples("bare", 10, 100, 1000), *samples("sidecar", 5, 20, 900)) == ("0.5×", "yes")


def test_a_goal_may_be_for_the_figure_itself_or_for_its_ratio_to_another_case() -> None:
    measured = samples("sidecar", 10, case="1 entry") + samples("sidecar", 12, case="9 entries")
    goal = Goal("answering", "sidecar", "a second", to_case="1 entry", at_most=1.1)
    assert verdict(goal, *measured) == ("1.2×", "no")
    assert verdict(replace(goal, to_case=None, at_most=12), *measured) == ("12 (9 entries)", "yes")


def test_a_goal_for_which_nothing_was_measured_says_so() -> None:
    assert verdict(FASTER, *samples("sidecar", 5)) == ("", "not measured")


def test_goals_are_words_that_can_be_read() -> None:
    assert str(replace(FASTER, case="kept")) == "sidecar: a second, kept, compared with bare: at least 0.5×"
    assert str(Goal("answering", "sidecar", "RSS MB", at_most=60)) == "sidecar: RSS MB: at most 60"


def test_every_goal_is_about_a_table_and_a_row_that_exist() -> None:
    rows = {heading.table: set(heading.rows) for part in PARTS for heading in part.headings}
    assert [str(goal) for goal in GOALS if not {goal.who, goal.to or goal.who} <= rows[goal.table]] == []
